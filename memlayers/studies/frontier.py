"""How many times the compute dense needs for the recall of another arm, over levels of recall, with intervals.

recall                    each configuration is a point: what it cost, and what it recalls
  |        m    _d        a level of recall is reached where the front of an arm's points crosses it: those that
  |      m  _d-           recall more than every cheaper one, joined on a logarithmic scale of cost, and never
  |    m -d               beyond them
  +------------- log cost times = dense's cost there / the arm's

No concave hull: recall rises slowly, then fast, and a hull would grant an arm between two distant runs what no run has.
An arm's front is that of tables of the world's own size, as all arms have them; other sizes have fronts of their own.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
from scipy import stats

from memlayers.studies.frame import texts

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
ROUNDING = 1e-9  # of a mean over seeds
GAP = 3  # in cost: runs further apart say little about what lies between, and no multiple is read there
SAME = 0.02  # of a cost: the match meets no target exactly
Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True)
class Points:
    """Configurations of one arm, in order of cost: cost (p,) and recall (p, seeds), NaN on seeds that were not run."""

    cost: Array
    recall: Array

    @property
    def mean(self) -> Array:
        return numpy.asarray(numpy.nanmean(self.recall, axis=1))


def family(arm: str, reference: str) -> str:
    """dense for dense_4x, of the reference dense; any other arm is a family of its own."""
    return reference if arm == reference or arm.startswith(f"{reference}_") else arm


def table_sizes(frame: pandas.DataFrame) -> pandas.Series:
    """num_keys of each run, as text."""
    return texts(frame.get("config.num_keys", pandas.Series(None, index=frame.index, dtype=object)))


def has_main_size(frame: pandas.DataFrame) -> pandas.Series:
    """Whether each run has the commonest num_keys of its world: its table size by default."""
    sizes = table_sizes(frame)
    return sizes == sizes.groupby(frame["world"]).transform(lambda own: own.mode().iloc[0])


def complete(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The ok runs of configurations with three seeds, or with as many as half of them have if that is fewer: one lucky
    seed must not lead a front.
    """
    runs = frame[frame["status"] == "ok"]
    counts = runs.groupby(["world", "arm", "digest"])["seed"].transform("nunique")
    usual = runs.assign(count=counts).drop_duplicates(["world", "arm", "digest"])["count"].median()
    return runs[counts >= min(3, math.floor(usual))] if len(runs) else runs


def points_of(frame: pandas.DataFrame, cost: str, reference: str, recall: str = "recall") -> dict[str, Points]:
    """The points of each family in the runs of one world, and those of other table sizes as `ARM, num_keys = SIZE`;
    `recall` is the read-out, such as held_out.
    """
    runs = complete(frame)
    seeds, usual = sorted(set(runs["seed"])), set(table_sizes(runs)[has_main_size(runs)])
    found: dict[str, list[tuple[float, list[float]]]] = {}
    for (arm, size, _), own in runs.groupby(["arm", table_sizes(runs), "digest"], sort=True):
        name = family(str(arm), reference) + ("" if size in usual else f", num_keys = {size}")
        by_seed = own.set_index("seed")[recall].reindex(seeds).astype(float)
        found.setdefault(name, []).append((float(own[cost].median()), by_seed.tolist()))
    arrays = {
        name: [numpy.array(column) for column in zip(*sorted(points), strict=True)] for name, points in found.items()
    }
    return {name: Points(costs, recalls) for name, (costs, recalls) in arrays.items()}


def seeds_a_point(points: dict[str, Points]) -> str:
    """3, or 3 to 5: on how many seeds configurations were run."""
    counts = numpy.concatenate([(~numpy.isnan(own.recall)).sum(axis=1) for own in points.values()])
    return " to ".join(map(str, dict.fromkeys((counts.min(), counts.max()))))


def front(cost: Array, recall: Array) -> list[int]:
    """Indices of the points that recall more than every cheaper one, from the cheapest to the best; of points of the
    same cost, the best.
    """
    kept: list[int] = []
    for i in numpy.lexsort((-recall, cost)):
        if kept and recall[i] <= recall[kept[-1]]:
            continue
        if kept and cost[i] <= (1 + SAME) * cost[kept[-1]]:
            kept.pop()
        kept.append(int(i))
    return kept


def cost_on_front(cost: Array, recall: Array, level: float) -> float:
    """What the front costs at a level of recall: inf above its best point, and NaN below its cheapest one, where less
    than that would do."""
    corners = front(cost, recall)
    heights = recall[corners]
    if level > heights[-1] + ROUNDING:
        return math.inf
    if level < heights[0] - ROUNDING:
        return math.nan
    return float(numpy.exp(numpy.interp(level, heights, numpy.log(cost[corners]))))


def gap_at(points: Points, level: float) -> float:
    """How many times the cost of the one is that of the other of the two points around a level that the front reaches;
    1 at a point, and above the best one.
    """
    corners = front(points.cost, points.mean)
    heights, costs = points.mean[corners], points.cost[corners]
    above = int(numpy.searchsorted(heights, level - ROUNDING))
    is_between = 0 < above < len(corners) and heights[above] > level + ROUNDING
    return float(costs[above] / costs[above - 1]) if is_between else 1.0


def shift_of_seeds(points: Points, level: float) -> Array:
    """(seeds,): how far the log cost at a level that the front reaches lies, on each seed, from that of the mean, to
    first order in the recalls of the two points around the level (the delta method); 0 for a front of one point.

    Just at a point where the front turns steeper or flatter, one of its two slopes stands for both: intervals hold the
    truth in 90% of studies there instead of 95%.
    """
    corners = front(points.cost, points.mean)
    if len(corners) == 1:
        return numpy.where(numpy.isnan(points.recall[corners[0]]), math.nan, 0.0)
    above = int(numpy.clip(numpy.searchsorted(points.mean[corners], level), 1, len(corners) - 1))
    low, high = corners[above - 1], corners[above]
    rise = points.mean[high] - points.mean[low]
    share = (level - points.mean[low]) / rise
    off = points.recall - points.mean[:, None]
    slope = math.log(points.cost[high] / points.cost[low]) / rise
    return numpy.asarray(-slope * ((1 - share) * off[low] + share * off[high]))


def multipliers(
    arm: Points, dense: Points, levels: tuple[float, ...] = LEVELS, gap: float = GAP
) -> list[dict[str, Any]]:
    """recall, times, low, high, n, at_least for each level between the cheapest points of both and the arm's best, but
    for those that lie, on either front, between points of which one costs more than `gap` times the other.

    low and high are a 95% t interval of the logarithm of `times`, over the n seeds on which all points around the level
    were run, paired, as all arms see the same documents in the same order on a seed; NaN for a single seed.
    at_least: dense has no run that reaches the level; the cost of its best stands for it, and times, low and high are
    lower bounds.
    """
    found = []
    for level in levels:
        own, other = (cost_on_front(one.cost, one.mean, level) for one in (arm, dense))
        if not math.isfinite(own) or math.isnan(other) or max(gap_at(arm, level), gap_at(dense, level)) > gap:
            continue
        shift, bound = -shift_of_seeds(arm, level), math.isinf(other)
        if bound:
            other = float(dense.cost[front(dense.cost, dense.mean)[-1]])
        else:
            shift = shift + shift_of_seeds(dense, level)
        shift = shift[~numpy.isnan(shift)]
        n, half = len(shift), math.nan
        if n > 1:
            half = float(stats.t.ppf(0.975, n - 1) * shift.std(ddof=1) / math.sqrt(n))
        times = other / own
        ends = {"low": times * math.exp(-half), "high": times * math.exp(half)}
        found.append({"recall": level, "times": times} | ends | {"n": n, "at_least": bound})
    return found


def curves(
    frame: pandas.DataFrame, cost: str, reference: str, recall: str = "recall"
) -> dict[str, list[dict[str, Any]]]:
    """multipliers of all points_of one world but the reference's; none where there is nothing to compare with."""
    points = points_of(frame, cost, reference, recall)
    dense = points.pop(reference, None)
    return {} if dense is None else {name: multipliers(own, dense) for name, own in points.items()}


def quoted(curve: list[dict[str, Any]], level: float = 0.5) -> str:
    """The multiplier at one level as text: 5.2 [4.8, 5.9]; at least 17 [15, 19]; a dash where there is none."""
    for entry in curve:
        if entry["recall"] == level:
            text = f"{entry['times']:.1f}"
            if not math.isnan(entry["low"]):
                text += f" [{entry['low']:.1f}, {entry['high']:.1f}]"
            return f"at least {text}" if entry["at_least"] else text
    return "-"


def seeds_at(curve: list[dict[str, Any]], level: float = 0.5) -> int | None:
    """How many seeds the multiplier at one level is of; None where there is none."""
    return next((entry["n"] for entry in curve if entry["recall"] == level), None)
