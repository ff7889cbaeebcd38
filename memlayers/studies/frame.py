"""Records as a DataFrame, with a row for each run."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas

from memlayers.config.digest import flatten
from memlayers.training.record import Record, parsed, read_record

RECORDS = "records.jsonl"  # of a committed study: one record a line, sorted
NAMES = [*(f"sampled_{k}" for k in (1, 4, 16, 64)), *(f"evolved_{k}" for k in (4, 16, 64)), "with_truth"]
SEARCHES = {f"{kind}_{name}": f"recall.searched.{kind}.{name}" for kind in ("two_hop", "constrained") for name in NAMES}
READOUTS = {  # short name -> dotted key in a record
    "recall": "recall.exact",
    "held_out": "recall.held_out",
    "questions": "recall.questions",
    "held_out_questions": "recall.held_out_questions",
    **{name: f"recall.by_view.{name}" for name in ("as_is", "shifted", "noisy", "turned")},
    **{f"votes_{k}": f"recall.votes.{k}" for k in (1, 2, 4, 8)},
    "told_composed": "recall.composed.told",
    "composed_withheld": "recall.composed.withheld",
    "composed": "recall.composed.untold",
    "composed_if_known": "recall.composed.untold_if_known",
    "composed_in_steps": "recall.composed.in_steps",
    **SEARCHES,
    "associative": "recall.associative",
    "question_tokens": "recall.context.tokens",
    "context_hits": "recall.context.hits.training",
    "context_hits_held_out": "recall.context.hits.held_out",
    "store_bytes": "recall.context.store_bytes",
    **{name: f"recall.{name}" for name in ("own", "others", "shared", "before", "peer", "peer_rows")},
    **{name: f"recall.{name}" for name in ("before_held_out", "old", "old_held_out")},
    **{f"stranger_{what}": f"recall.stranger_{what}" for what in ("all", "rows")},
    "bits_per_parameter": "recall.bits_per_parameter",
    "plateau": "training.plateau.exposures",
    "unknown_auroc": "recall.unknown.auroc",
    "right_at_1": "recall.unknown.recall_at_1",
    "right_at_5": "recall.unknown.recall_at_5",
    "shuffled": "recall.shuffled",
    "without_tables": "recall.tables.without",
    "table_bytes": "storage.tables",
    "weight_bytes": "storage.weights",
    "bits_per_fact": "storage.bits_per_fact",
    **{f"bytes_{way}": f"sent.{way}" for way in ("up", "down")},
    "bytes_sent": "sent.bytes",
    "rows_sent": "sent.rows",
    **{name: f"taught.{name}" for name in ("forgotten", "forgotten_held_out", "delta_bytes", "rows", "steps")},
    "agrees_when_wrong": "recall.teacher.agrees_when_wrong",
    "right_when_right": "recall.teacher.right_when_right",
    "right_when_wrong": "recall.teacher.right_when_wrong",
    "flops_per_token": "cost.flops_per_token",
    "training_flops": "cost.training_flops",
    "training_flops_with_teacher": "cost.training_flops_with_teacher",
    "params": "cost.params",
    "seconds": "timing.seconds",
}

COUNTS = ("question_tokens", "store_bytes", "bits_per_parameter")  # under `recall` in a record, and no shares
SHARES = {"recalled", "slots_used", "same_address", "same_address_name", "rows_sent"} | {  # read-outs from 0 to 1
    name for name, key in READOUTS.items() if key.startswith("recall.") and name not in COUNTS
}


def is_share(readout: str) -> bool:
    return readout in SHARES or readout.startswith("recall.")


def records(folder: str | Path) -> pandas.DataFrame:
    """Every record below a folder: study, world, arm, seed, digest, status, error, axes.KEY, read-outs by short names,
    and all else under dotted names. A failed run is a row without read-outs.

    Raises ValueError, in one line, for a folder without records and for a file that is not one.
    """
    runs = list(read_all(Path(folder)))
    if not runs:
        raise ValueError(f"{folder}: no record of a run; accepted: a folder such as results/local/single")
    return framed(runs)


def read_all(folder: Path) -> Iterator[Record]:
    """The records of files ARM-sSEED-DIGEST.json and of records.jsonl, in the order of their paths."""
    for path in sorted([*folder.rglob("*-s*-*.json"), *folder.rglob(RECORDS)]):
        if path.name == RECORDS:
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                yield parsed(line, f"{path}, line {number}")
        elif (record := read_record(path)) is not None:
            yield record


def framed(runs: list[Record]) -> pandas.DataFrame:
    """The DataFrame of these records, as in `records`."""
    swept: dict[str, set[str]] = {}
    for record in runs:
        swept.setdefault(record["study"], set()).update(record["axes"])
    frame = pandas.DataFrame([row(record, swept[record["study"]]) for record in runs])
    used = [name for name in frame if name.startswith("recall.tables.usage.") and name.endswith((".used", ".kl"))]
    for short in ("used", "kl"):  # of slots, as a mean over the layers of a model
        frame[f"slots_{short}"] = frame[[name for name in used if name.endswith(f".{short}")]].mean(axis=1)
    for short, place in (
        ("same_address", "at_answer"),
        ("same_address_name", "at_name"),
    ):  # overlap of reads in two phrasings
        shared = [name for name in frame if name.endswith(f".{place}.held_out.weight")]
        frame[short] = frame[shared].mean(axis=1)
    for name in READOUTS:
        frame[name] = pandas.to_numeric(frame[name])
    frame["recalled"] = frame["held_out"].fillna(frame["recall"])  # in held-out sentences where a world has some
    alone = frame["training_flops"]  # a run without a teacher has only its own
    frame["training_flops_with_teacher"] = frame["training_flops_with_teacher"].fillna(alone)
    return frame


def row(record: Record, swept: set[str]) -> dict[str, Any]:
    """The row of a run, with its value of every axis that any command of its study swept."""
    flat = flatten(record)
    missing = {f"axes.{key}": flat[f"config.{key}"] for key in swept - set(record["axes"]) if f"config.{key}" in flat}
    return flat | missing | {short: flat.get(long) for short, long in READOUTS.items()}


def axes_of(frame: pandas.DataFrame, declared: Sequence[str] = ()) -> list[str]:
    """The columns that identify a row of a table: those declared, else the arm and each axis with several values except
    world and seed; and settings that differ, as many as it takes until the runs of each cell have one digest.

    Raises ValueError if no setting separates two digests.
    """
    swept = [name for name in frame if name.startswith("axes.") and label(name) not in ("arm", "world", "seed")]
    axes = list(declared) or ["arm", *(name for name in swept if texts(frame[name]).nunique() > 1)]
    settings = [name for name in frame if name.startswith("config.") and texts(frame[name]).nunique() > 1]
    while mixed := mixed_cells(frame, axes):
        gains = {name: mixed - mixed_cells(frame, [*axes, name]) for name in settings if name not in axes}
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] <= 0:
            raise ValueError(
                f"{frame['study'].iloc[0]}: runs of one arm and seed have several digests, and no setting in which "
                "they differ; keep one of them, or give the others a study=NAME of their own"
            )
        axes.append(best)
    return axes


def mixed_cells(frame: pandas.DataFrame, axes: list[str]) -> int:
    """The number of digests in excess of one per cell."""
    keys = [texts(frame[name]) for name in ("study", "world", *axes)]
    return int((frame.groupby(keys)["digest"].nunique() - 1).sum())


def texts(column: pandas.Series) -> pandas.Series:
    """Values as text, for grouping: missing values are -, and 8 and 8.0 are equal."""

    def text(value: Any) -> str:
        if value is None or value != value:
            return "-"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return column.map(text)


def label(axis: str) -> str:
    """The key of a column on a command line: model.ffn.topk for axes.model.ffn.topk."""
    return axis.removeprefix("axes.").removeprefix("config.")


def with_missing(
    frame: pandas.DataFrame, rows: list[str], readouts: list[str], known: Container[str]
) -> pandas.DataFrame:
    """With empty columns for what no run has, but runs may: a setting of a layer that may stand somewhere, as
    model.before.kind, and a part of a read-out, as recall.by_exposures.1-3. Raises ValueError for any other key.
    """
    empty = [key for key in rows if key not in known]
    parts = [key for key in readouts if key not in frame]
    for name, keys in (("rows", empty), ("readouts", parts)):
        for key in keys:
            above = key.rpartition(".")[0]
            if above not in known and not (above.count(".") and any(one.startswith(f"{above}.") for one in frame)):
                refuse_unknown(name, [key], ())
    return frame.assign(**dict.fromkeys(empty), **dict.fromkeys(parts, float("nan")))


def refuse_unknown(place: str, keys: list[str], known: Container[str]) -> None:
    """Raises ValueError for a key of the layout that is in no record."""
    for key in keys:
        if key not in known:
            raise ValueError(f"report.{place}: {key} is in no record; accepted: a setting, or a read-out of a run")
