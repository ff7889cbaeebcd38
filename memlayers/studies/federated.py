"""What scripts/federated.py measures (results/beyond_federated/)."""

from typing import Any

import pandas

from memlayers.studies.scripted import Scripted
from memlayers.studies.table import estimate, interval

QUESTION = """Clients hold facts of their own and some shared ones. What is recalled, sent and given away if all weights
are averaged each round (`average`), and if of the value table only rows that were read are merged, by how often each
client read them (`rows`)? `alone`: nothing is merged. `warm`: a server first trains a model on the shared facts, and
clients go on with their own; in `rows_only` with the table alone, all else frozen. One client holds all facts: the
upper bound of its way.

Recall, a mean over clients: of a client's `own` facts, the `others`' and `shared` ones by the model after the last
merge; of own ones `before` it. What gets out, as recall of a client's own facts by who holds none of them: by a
stranger with the first model and all that the client sent in the last round (`stranger_all`), or only the rows that it
read (`stranger_rows`); by another client before the last merge (`peer`), and with those rows (`peer_rows`). In prose
all is asked in words that training never uses; asked in words of training, more may get out. `bytes_up` and
`bytes_down` are MB of a client and round, `bytes` MB of all, both ways; `rows_sent` is the share of the table."""
AXES = ["arm", "way", "clients", "rounds"]


def command(content: dict[str, Any]) -> str:
    """The command that writes the file."""
    runs = content["runs"]
    several = sorted({run["clients"] for run in runs} - {1}) or ["..."]  # in a file that is not finished
    given = {"world": content["world"]} | {name: f"{value:g}" for name, value in content["settings"].items()}
    rounds = dict.fromkeys(run["rounds"] for run in runs)
    given |= {"clients": ",".join(map(str, several)), "rounds": ",".join(map(str, rounds))}
    given["seeds"] = str(1 + max(run["seed"] for run in runs))
    return "python scripts/federated.py " + " ".join(f"--{name} {value}" for name, value in given.items())


def verdict(runs: pandas.DataFrame) -> str:
    """For each number of clients and rounds: memory merged by rows against memory averaged, and what rows give away."""
    cells = {key: group.set_index("seed") for key, group in runs.groupby(AXES)}
    sentences = []
    several = runs[runs["clients"] > 1]
    for key in sorted(set(zip(several["clients"], several["rounds"], strict=True))):
        averaged = cells.get(("memory", "average", *key))
        merged = cells.get(("memory", "rows", *key))
        if averaged is None or merged is None:
            continue
        paired = (merged["own"] - averaged["own"]).dropna()
        difference = estimate("difference", paired)
        unclear = difference["difference_low"] <= 0 <= difference["difference_high"]
        sentence = (
            f"With {key[0]} clients and {key[1]} rounds, memory recalls {mean_of(merged, 'own')} of their own facts "
            f"where rows are merged and {mean_of(averaged, 'own')} where all weights are averaged: "
            f"{interval(difference, 'difference')} over {len(paired)} paired seeds"
            f"{', no clear difference' if unclear else ''}; for "
            f"{merged['bytes'].mean() / averaged['bytes'].mean():.2f} times the bytes. A stranger with the first model "
            f"and the rows that a client read recalls {mean_of(merged, 'stranger_rows')} of that client's facts."
        )
        frozen = cells.get(("memory", "rows_only", *key))
        if frozen is not None:
            own, stranger = mean_of(frozen, "own"), mean_of(frozen, "stranger_rows")
            sentence += f" Where only rows are trained, after a common first model, clients recall {own} of their own "
            sentence += f"facts and a stranger {stranger}."
        dense = cells.get(("dense", "average", *key))
        if dense is not None:
            sentence += f" Dense recalls {mean_of(dense, 'own')} where all weights are averaged."
        sentences.append(sentence)
    return " ".join(sentences)


def mean_of(runs: pandas.DataFrame, name: str) -> str:
    """The mean of a share with its interval, as text."""
    return interval(FEDERATED.estimates(name, runs[name]), name)


FEDERATED = Scripted(
    name="beyond_federated",
    script="federated",
    axes=AXES,
    shares=["own", "others", "shared", "before", "stranger_all", "stranger_rows", "peer", "peer_rows"],
    costs=["bytes_up", "bytes_down", "bytes", "rows_sent", "params"],
    question=QUESTION,
    literature="""McMahan et al. 2017: averaging the weights of clients reaches the accuracy of common training in 10 to
100 times fewer rounds than a step a round. Carlini et al. 2021: models give away texts that they were trained on.""",
    verdict=verdict,
    command=command,
    x="way",
    y="own",
)
