"""Records -> one row an arm: mean, 95% interval over seeds, n, and the difference to the reference, paired by seed."""

import json
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlayers.recall.plateau import left_plateau
from memlayers.training.record import Record, read_record

# Two-sided 95% quantiles of Student's t, by degrees of freedom 1, 2, ...
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% t interval; low and high are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, float | None]:
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Row:
    """One arm of one study in one world."""

    arm: str
    n: int
    recall: Estimate
    held_out: Estimate | None  # None where the world has no second phrasing
    bits_per_parameter: Estimate
    difference: Estimate | None  # recall minus the reference's, seed by seed; None for the reference itself
    flops_per_token: float
    training_flops: float
    parameters: int
    seconds: float  # median over seeds
    curve: list[tuple[float, float]]  # (exposures, mean recall)
    plateau: Estimate | None  # exposures until recall passed the floor, over the n seeds that did; None if none did
    floor: float  # recall of always giving the commonest object
    seeds: tuple[int, ...]


def t95(freedom: int) -> float:
    """Two-sided 95% quantile; beyond the table an expansion around the normal's (Abramowitz & Stegun 26.7.5)."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    z = 1.95996
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def estimate(values: list[float]) -> Estimate:
    """Mean and Student's t interval."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = t95(n - 1) * spread
    return Estimate(mean, mean - half, mean + half, n)


def load(folder: Path, depth: str = "*/*/") -> dict[str, dict[str, list[Record]]]:
    """study -> world -> records that ended well, of all files of a results folder, or with **/ of any folder."""
    found: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob(f"{depth}*-s*-*.json")):
        record = read_record(path)
        if record is not None and record["status"] == "ok":
            found[record["study"]][record["world"]].append(record)
    return {study: dict(worlds) for study, worlds in found.items()}


def rows(records: list[Record], reference: str = "dense") -> list[Row]:
    """One row an arm, the reference first, the others by training FLOPs. Raises ValueError for mixed digests."""
    arms: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record["seed"]):
        arms[record["arm"]].append(record)
    for arm, members in arms.items():
        digests = sorted({member["digest"] for member in members})
        if len(digests) > 1:
            raise ValueError(
                f"arm {arm!r} of study {members[0]['study']!r} mixes configurations {', '.join(digests)}; "
                "keep the records of one, or give the other a study=NAME of its own"
            )
    made = [row(members, arms.get(reference, [])) for members in arms.values()]
    return sorted(made, key=lambda r: (r.arm != reference, r.training_flops, r.arm))


def row(members: list[Record], reference: list[Record]) -> Row:
    """The records of one arm, all of one digest."""
    first = members[0]
    recall = {member["seed"]: member["recall"]["exact"] for member in members}
    base = {member["seed"]: member["recall"]["exact"] for member in reference}
    paired = [recall[seed] - base[seed] for seed in recall if seed in base]
    held_out = [m["recall"]["held_out"] for m in members if m["recall"]["held_out"] is not None]
    left = [exposures for exposures in map(plateau, members) if exposures is not None]
    curves = [member["training"]["curve"] for member in members]
    return Row(
        arm=first["arm"],
        n=len(members),
        recall=estimate(list(recall.values())),
        held_out=estimate(held_out) if held_out else None,
        bits_per_parameter=estimate([member["recall"]["bits_per_parameter"] for member in members]),
        difference=estimate(paired) if paired and first["arm"] != reference[0]["arm"] else None,
        flops_per_token=first["cost"]["flops_per_token"],
        training_flops=first["cost"]["training_flops"],
        parameters=first["cost"]["params"],
        seconds=statistics.median(member["timing"]["seconds"] for member in members),
        curve=[
            (points[0]["exposures"], sum(point["recall"] for point in points) / len(points))
            for points in zip(*curves, strict=False)
        ],
        plateau=estimate(left) if left else None,
        floor=first["recall"]["floor"],
        seeds=tuple(recall),
    )


def plateau(record: Record) -> float | None:
    """Exposures until the run left the plateau."""
    curve = [(point["exposures"], point["recall"]) for point in record["training"]["curve"]]
    return left_plateau(curve, record["recall"]["floor"])


def multiplier(table: list[Row], arm: Row) -> tuple[float, bool] | None:
    """Least compute at which a dense arm reaches the arm's recall, over the arm's own compute.

    Interpolated between dense arms in log compute, on the best recall at or below each compute. The second value is
    False where even the largest dense arm stays below: then the multiplier is more than the first value.
    None where there is no dense arm.
    """
    dense = sorted((r.training_flops, r.recall.mean) for r in table if r.arm.startswith("dense"))
    if not dense:
        return None
    target, own = arm.recall.mean, arm.training_flops
    before: tuple[float, float] | None = None
    for flops, recall in dense:
        if before is not None and recall <= before[1]:
            continue  # more compute, no more recall: not on the frontier
        if recall >= target:
            if before is None:
                return flops / own, True
            share = (target - before[1]) / (recall - before[1])
            return math.exp(math.log(before[0]) + share * math.log(flops / before[0])) / own, True
        before = (flops, recall)
    assert before is not None
    return dense[-1][0] / own, False


def summary(results: Path) -> dict[str, Any]:
    """The committed records as numbers for programs: studies.<study>.<world>.arms.<arm>."""
    studies: dict[str, Any] = {}
    for study, worlds in load(results).items():
        for world, records in worlds.items():
            arms = {}
            for one in rows(records):
                arms[one.arm] = {
                    "n": one.n,
                    "recall": one.recall.as_json(),
                    "held_out_recall": one.held_out.as_json() if one.held_out else None,
                    "bits_per_parameter": one.bits_per_parameter.mean,
                    "flops_per_token": one.flops_per_token,
                    "training_flops": one.training_flops,
                    "parameters": one.parameters,
                    "seconds": one.seconds,
                    "plateau": one.plateau and {**one.plateau.as_json(), "n": one.plateau.n},
                }
            studies.setdefault(study, {})[world] = {"arms": arms}
    return {"studies": studies}


def dumps(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
