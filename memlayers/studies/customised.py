"""What scripts/finetune.py measures (results/beyond_customisation/)."""

from typing import Any

import pandas

from memlayers.studies.scripted import Scripted
from memlayers.studies.table import interval

QUESTION = """A trained model is to know the facts of 50 new people. Is it told them before each question (`context`:
a document of the person who is asked about, whom nobody has to search for; old facts are asked as before), or taught:
all weights (`full`), low-rank changes of its matrices (`lora`), the value table of its one memory layer (`table`), or
up to 500 or 2,000 rows of it that new facts read more than old ones do (`rows_500`, `rows_2000`)? Teaching ends when
95% of the new facts are recalled in words of training, which is measured every five steps, or after 400 steps; its rate
is the one, of six, that forgets least of those that get there on another seed, or learns most where none does.

`new` and `old` are recall of new facts and of all old ones, `before` that of old ones at first, in words of training
and, in prose, in words that it never uses (`held_out`); `forgotten` is the relative fall in recall of old ones. `bytes`
is what must be stored beside the first model, in MB, `tokens` the length of a question up to its answer; `seconds` are
those of steps and of choosing rows."""
LITERATURE = """Sparse memory finetuning (Lin et al. 2025) of 1,000 facts: F1 on NaturalQuestions falls by 89% after
full finetuning, 71% after LoRA, 11% where only rows are trained that the new facts read and other text does not."""
TARGET = 0.95  # of foreign/teach.py
NAMES = {
    "context": "Told in the context",
    "full": "all weights taught",
    "lora": "low-rank changes",
    "table": "the table alone",
    "rows_500": "500 rows of it",
    "rows_2000": "2,000",
}


def verdict(runs: pandas.DataFrame) -> str:
    """Of each way: what is forgotten, what is kept, which new facts are not learnt, or recalled in other words."""
    sentences, in_prose = [], bool(runs["new_held_out"].notna().any())
    for arm, own in runs.groupby("arm", sort=False):
        kept = f"{own['bytes'].mean() / 1e6:.3g} MB"
        lost = "nothing, by construction" if arm == "context" else shown(own, "forgotten")
        sentence = f"{NAMES[str(arm)]}: {lost}, {kept}"
        if own["new"].mean() < TARGET - 0.005:
            sentence += f", though only {shown(own, 'new')} of the new facts are learnt"
        if in_prose:
            sentence += f", {shown(own, 'new_held_out')}"
        sentences.append(sentence)
    n, text = runs["seed"].nunique(), "; ".join(sentences)
    once = runs.drop_duplicates("seed")  # all ways begin with the same models
    knows = f"{shown(once, 'before')} are known before"
    other = ", and the share of new ones that is recalled in words that training never uses" if in_prose else ""
    return f"share of old facts that is forgotten, what is kept beside the model{other} (n = {n}; {knows}). {text}."


def shown(runs: pandas.DataFrame, name: str) -> str:
    return interval(CUSTOMISED.estimates(name, runs[name]), name)


def command(content: dict[str, Any]) -> str:
    """The command that writes the file."""
    seeds = 1 + max(run["seed"] for run in content["runs"])
    people = content["settings"]["people"]
    return f"python scripts/finetune.py --world {content['world']} --people {people} --seeds {seeds}"


CUSTOMISED = Scripted(
    name="beyond_customisation",
    script="finetune",
    axes=["arm"],
    shares=["new", "new_held_out", "before", "before_held_out", "old", "old_held_out"],
    costs=["forgotten", "forgotten_held_out", "steps", "seconds", "rows", "bytes", "tokens"],
    question=QUESTION,
    literature=LITERATURE,
    verdict=verdict,
    command=command,
    x="arm",
    y="forgotten",
)
