"""The results of scripts/federated.py (results/federated.json), for RESULTS.md and results/summary.json."""

import json
from pathlib import Path
from typing import Any

import pandas

from memlayers.studies.summary import spread
from memlayers.studies.table import as_markdown, estimate, interval

AXES = ["arm", "way", "clients"]
RECALLS = ["own", "others", "shared", "before", "stranger_all", "stranger_rows", "peer", "peer_rows"]
COSTS = ["bytes_up", "bytes_down", "bytes", "rows_sent", "params"]
MEGABYTES = ["bytes_up", "bytes_down", "bytes"]  # read-outs that are shown in MB
QUESTION = """Clients hold facts of their own and some shared ones. What is recalled, sent and given away if all weights
are averaged each round (`average`), and if of the value table only rows that were read are merged, by how often each
client read them (`rows`)? `alone`: nothing is merged. `warm`: a server first trains a model on the shared facts, and
clients go on with their own; in `rows_only` with the table alone, all else frozen. One client holds all facts: the
upper bound of its way.

Recall, a mean over clients: of a client's `own` facts, the `others`' and `shared` ones by the model after the last
merge; of own ones `before` it. What gets out, as recall of a client's own facts by who holds none of them: by a
stranger with the first model and all that the client sent in the last round (`stranger_all`), or only the rows that it
read (`stranger_rows`); by another client before the last merge (`peer`), and with those rows (`peer_rows`). `bytes_up`
and `bytes_down` are MB of a client and round, `bytes` MB of all, both ways; `rows_sent` is the share of the table."""


def load(path: Path) -> dict[str, Any] | None:
    """The content of the file, settings and runs, or None without a file. Raises ValueError for another format."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        frame(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not written by scripts/federated.py ({type(error).__name__}: {error})") from None
    return dict(content)


def frame(content: dict[str, Any]) -> pandas.DataFrame:
    """The runs as a DataFrame, with floats in all read-outs."""
    columns = [*AXES, "seed", *RECALLS, *COSTS]
    runs = pandas.DataFrame(content["runs"], columns=columns)
    return runs.astype(dict.fromkeys([*RECALLS, *COSTS], float))


def rows(runs: pandas.DataFrame) -> list[dict[str, Any]]:
    """A row for each arm, way and number of clients: n, and READOUT, READOUT_low, READOUT_high of all read-outs."""
    estimates = []
    for key, group in runs.groupby(AXES, sort=False):
        row = dict(zip(AXES, key, strict=True)) | {"n": len(group)}
        for name in [*RECALLS, *COSTS]:
            row |= estimate(name, group[name])
        estimates.append(row)
    return sorted(estimates, key=lambda row: (row["clients"], row["arm"]))


def command(content: dict[str, Any]) -> str:
    """The command that writes the file."""
    runs = content["runs"]
    several = sorted({run["clients"] for run in runs} - {1})
    given = {name: f"{value:g}" for name, value in content["settings"].items()}
    given |= {"clients": ",".join(map(str, several)), "seeds": str(1 + max(run["seed"] for run in runs))}
    return "python scripts/federated.py " + " ".join(f"--{name} {value}" for name, value in given.items())


def section(content: dict[str, Any]) -> str:
    """The section of RESULTS.md: question, verdict, command and table."""
    runs = frame(content)
    shown = []
    for row in rows(runs):
        cells = {axis: row[axis] for axis in AXES}
        for name in [*RECALLS, *COSTS]:
            unit = 1e6 if name in MEGABYTES else 1
            cells[name] = interval({key: row[key] / unit for key in (name, f"{name}_low", f"{name}_high")}, name)
        shown.append(cells | {"n": row["n"]})
    parts = [
        "## beyond_federated",
        QUESTION,
        verdict(runs),
        f"    {command(content)}",
        as_markdown(pandas.DataFrame(shown)),
    ]
    return "\n\n".join(part for part in parts if part)


def verdict(runs: pandas.DataFrame) -> str:
    """For each number of clients: memory merged by rows against memory averaged, and what rows give away."""
    cells = {key: group.set_index("seed") for key, group in runs.groupby(AXES)}
    sentences = []
    for clients in sorted(set(runs["clients"]) - {1}):
        averaged = cells.get(("memory", "average", clients))
        merged = cells.get(("memory", "rows", clients))
        if averaged is None or merged is None:
            continue
        paired = (merged["own"] - averaged["own"]).dropna()
        difference = estimate("difference", paired)
        unclear = difference["difference_low"] <= 0 <= difference["difference_high"]
        sentence = (
            f"With {clients} clients, memory recalls {mean_of(merged, 'own')} of their own facts where rows are merged "
            f"and {mean_of(averaged, 'own')} where all weights are averaged: {interval(difference, 'difference')} over "
            f"{len(paired)} paired seeds{', no clear difference' if unclear else ''}; for "
            f"{merged['bytes'].mean() / averaged['bytes'].mean():.2f} times the bytes. A stranger with the first model "
            f"and the rows that a client read recalls {mean_of(merged, 'stranger_rows')} of that client's facts."
        )
        frozen = cells.get(("memory", "rows_only", clients))
        if frozen is not None:
            both = f"{mean_of(frozen, 'own')} and {mean_of(frozen, 'stranger_rows')}"
            sentence += f" Where only rows are trained, after a common first model, these are {both}."
        dense = cells.get(("dense", "average", clients))
        if dense is not None:
            sentence += f" Dense recalls {mean_of(dense, 'own')} where all weights are averaged."
        sentences.append(sentence)
    return " ".join(sentences)


def mean_of(runs: pandas.DataFrame, name: str) -> str:
    """The mean of a read-out with its interval, as text."""
    return interval(estimate(name, runs[name]), name)


def summary(content: dict[str, Any] | None) -> dict[str, Any]:
    """The part of results/summary.json: the axes of each row, n, and {mean, low, high} of the read-outs that it has."""
    if content is None:
        return {}
    summaries = []
    for row in rows(frame(content)):
        there = [name for name in [*RECALLS, *COSTS] if pandas.notna(row[name])]
        axes = {"arm": row["arm"], "way": row["way"], "clients": int(row["clients"]), "n": row["n"]}
        summaries.append(axes | {name: spread(row, name) for name in there})
    return {"beyond_federated": {"biographies": {"rows": summaries}}}
