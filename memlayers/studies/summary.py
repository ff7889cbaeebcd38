"""results/summary.json: the numbers that texts quote, by study, world and arm."""

from pathlib import Path
from typing import Any

import pandas

from memlayers.studies.frame import framed, read_all
from memlayers.studies.frontier import SAME, complete, curves, family, has_main_size
from memlayers.studies.layout import read_layout
from memlayers.studies.table import axes_in, estimate, table

EXPOSURES = 16  # of a fact, at which arms are compared in all worlds
COSTS = {"multiplier": "training_flops", "seconds": "seconds"}
MEANS = ("recall", "unknown_auroc", "flops_per_token", "training_flops", "params")


def summary(folders: list[Path]) -> dict[str, Any]:
    """{"studies": {study: {world: ...}}}: of a study of frontiers multiples and arms, of another one its table."""
    found = {}
    for folder in folders:
        layout, frame = read_layout(folder), framed(list(read_all(folder)))
        made = of_world if layout["frontier"] else of_table
        found[folder.name] = {str(world): made(own, layout) for world, own in frame.groupby("world")}
    return {"studies": found}


def of_table(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, Any]:
    """Of a table whose rows are arms, arms: the means of each. Of another, rows: its axes, n, and {mean, low, high} of
    the read-outs that are there.
    """
    made = table(frame, layout)
    axes = axes_in(made)
    if axes == ["arm"]:
        return {"arms": {str(arm): arm_of(runs[runs["status"] == "ok"]) for arm, runs in frame.groupby("arm")}}
    rows = []
    for _, row in made.iterrows():
        there = [name for name in (*layout["readouts"], "difference") if pandas.notna(row[name])]
        rows.append(
            {axis: row[axis] for axis in axes} | {"n": int(row["n"])} | {one: spread(row, one) for one in there}
        )
    return {"rows": rows}


def spread(row: Any, name: str) -> dict[str, float | None]:
    return {part: number(row[f"{name}{end}"]) for part, end in (("mean", ""), ("low", "_low"), ("high", "_high"))}


def of_world(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, Any]:
    """multiplier, seconds and parameters: curves of how many times the reference's training FLOPs, seconds and stored
    parameters each arm stands for, the last at EXPOSURES; arms: their means there, with the table size of the world.
    """
    reference = layout["reference"]["arm"]
    costs = {name: (frame, cost) for name, cost in COSTS.items()}
    costs["parameters"] = frame[frame["config.training.exposures"] == EXPOSURES], "params"
    made: dict[str, Any] = {}
    for name, (runs, cost) in costs.items():
        found = curves(runs, cost, reference, layout["y"])
        made[name] = {arm: [entry | ends(entry) for entry in curve] for arm, curve in found.items()}
    return made | {"arms": {name: arm_of(runs) for name, runs in main_runs(frame, reference, layout["y"]).items()}}


def ends(entry: dict[str, Any]) -> dict[str, float | None]:
    return {end: number(entry[end]) for end in ("low", "high")}


def main_runs(frame: pandas.DataFrame, reference: str, recall: str = "recall") -> dict[str, pandas.DataFrame]:
    """The runs of each arm at EXPOSURES and the world's own table size.

    Of dense_4x and its like the way of spending as much that recalls most: wider, deeper, or dense shown more often.
    """
    ok = complete(frame[has_main_size(frame)])
    found = {}
    for arm, runs in ok[ok["config.training.exposures"] == EXPOSURES].groupby("arm"):
        if arm != reference and family(str(arm), reference) == reference:
            as_much = (ok["training_flops"] / runs["training_flops"].median() - 1).abs() < SAME
            runs = ok[as_much & ok["arm"].isin([arm, reference])]
        configurations = [own for _, own in runs.groupby("digest")]
        found[str(arm)] = max(configurations, key=lambda own: own[recall].mean())
    order = sorted(found, key=lambda arm: (family(arm, reference) != reference, arm))
    return {arm: found[arm] for arm in order}


def arm_of(runs: pandas.DataFrame) -> dict[str, Any]:
    values: dict[str, Any] = {name: number(runs[name].mean()) for name in MEANS}
    values["parameters"] = values.pop("params")
    if not runs["held_out"].isna().all():
        found = estimate("held_out", runs["held_out"]).values()
        values["held_out_recall"] = dict(zip(("mean", "low", "high"), map(number, found), strict=True))
        places = {"at_name": "same_address_name", "at_answer": "same_address"}
        values["address_invariance"] = {place: number(runs[name].mean()) for place, name in places.items()}
    return values | {"n": len(runs)}


def number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if pandas.isna(value) else float(value)
