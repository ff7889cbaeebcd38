"""What scripts/finetune.py measures (results/beyond_customisation/)."""

from typing import Any

import pandas

from memlayers.studies.scripted import Scripted
from memlayers.studies.table import interval

QUESTION = """A trained model is to know the facts of 50 new people. Is it told them before each question (`context`:
a document of the person who is asked about, whom nobody has to search for; old facts are asked as before), or taught:
all weights (`full`), low-rank changes of its matrices (`lora`), the value table of its one memory layer (`table`), or
those 500 or 2,000 rows of it that new facts read more than old ones do (`rows_500`, `rows_2000`)? All are taught until
95% of the new facts are recalled in words of training, at the rate, of six, that keeps most old facts on another seed.

`new` and `old` are recall of new facts and of all old ones, in prose also in words that training never uses;
`forgotten` is the relative fall in recall of old ones, in those words where there are any; `bytes` is what must be
stored beside the first model, in MB, `tokens` the length of a question."""
LITERATURE = """Sparse memory finetuning (Lin et al. 2025) of 1,000 facts: F1 on NaturalQuestions falls by 89% after
full finetuning, 71% after LoRA, 11% where only rows are trained that the new facts read and other text does not."""
NAMES = {
    "context": "told in the context",
    "full": "taught to all weights",
    "lora": "to low-rank changes",
    "table": "to the table alone",
    "rows_500": "to 500 rows of it",
    "rows_2000": "to 2,000",
}


def verdict(runs: pandas.DataFrame) -> str:
    """Of each way: what is forgotten, how much has to be kept, and in prose what is recalled in other words."""
    sentences = []
    for arm, own in runs.groupby("arm", sort=False):
        lost = interval(CUSTOMISED.estimates("forgotten", own["forgotten"]), "forgotten")
        if arm == "context":
            lost = "by construction nothing"
        sentence = f"{NAMES[str(arm)]}, {lost} is forgotten for {own['bytes'].mean() / 1e6:.3g} MB"
        if own["new_held_out"].notna().any():
            other = interval(CUSTOMISED.estimates("new_held_out", own["new_held_out"]), "new_held_out")
            sentence += f", and {other} of the new ones is recalled in other words"
        sentences.append(sentence)
    n = runs["seed"].nunique()
    return f"Of old facts, and for bytes to be kept beside the first model (n = {n}): {'; '.join(sentences)}."


def command(content: dict[str, Any]) -> str:
    """The command that writes the file."""
    seeds = 1 + max(run["seed"] for run in content["runs"])
    return f"python scripts/finetune.py --tune --world {content['world']} --people {content['people']} --seeds {seeds}"


CUSTOMISED = Scripted(
    name="beyond_customisation",
    script="finetune",
    axes=["arm"],
    shares=["new", "new_held_out", "old", "old_held_out", "forgotten"],
    costs=["steps", "seconds", "bytes", "tokens"],
    question=QUESTION,
    literature=LITERATURE,
    verdict=verdict,
    command=command,
    x="arm",
    y="forgotten",
)
