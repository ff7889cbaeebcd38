"""How many times the compute dense needs for the recall of another arm, over levels of recall, with intervals.

recall                    each configuration is a point: what it cost, and what it recalls
  |        m    _d        a level of recall is reached where the front of an arm's points crosses it: those that
  |      m  _d-           recall more than every cheaper one, joined on a logarithmic scale of cost, and never
  |    m -d               beyond them
  +------------- log cost times = dense's cost there / the arm's

No concave hull: recall rises slowly, then fast, and a hull would grant an arm between two distant runs what no run has.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
RESAMPLES = 2000
ROUNDING = 1e-9  # of a mean over seeds
SAME = 0.02  # of a cost: the match meets no target exactly


@dataclass(frozen=True)
class Points:
    """Configurations of one arm, in order of cost: cost (p,) and recall (p, seeds); every one has the same seeds."""

    cost: numpy.ndarray[Any, Any]
    recall: numpy.ndarray[Any, Any]


def family(arm: str, reference: str) -> str:
    """dense for dense_4x, of the reference dense; any other arm is a family of its own."""
    return reference if arm == reference or arm.startswith(f"{reference}_") else arm


def points_of(
    frame: pandas.DataFrame, cost: str, reference: str, seeds: list[int], recall: str = "recall"
) -> dict[str, Points]:
    """The points of each family in the ok runs of one world, of configurations that were run on all these seeds;
    `recall` is the read-out, such as held_out."""
    found: dict[str, list[tuple[float, list[float]]]] = {}
    for (arm, _), runs in frame[frame["status"] == "ok"].groupby(["arm", "digest"], sort=True):
        by_seed = runs.set_index("seed")
        if set(seeds) <= set(by_seed.index):
            point = float(by_seed[cost].median()), [float(by_seed[recall][seed]) for seed in seeds]
            found.setdefault(family(str(arm), reference), []).append(point)
    arrays = {name: sorted(points) for name, points in found.items()}
    return {
        name: Points(numpy.array([cost for cost, _ in points]), numpy.array([recall for _, recall in points]))
        for name, points in arrays.items()
    }


def front(cost: numpy.ndarray[Any, Any], recall: numpy.ndarray[Any, Any]) -> list[int]:
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


def cost_on_front(cost: numpy.ndarray[Any, Any], recall: numpy.ndarray[Any, Any], level: float) -> float:
    """What the front costs at a level of recall: inf above its best point, and NaN below its cheapest one, where less
    than that would do."""
    corners = front(cost, recall)
    heights = recall[corners]
    if level > heights[-1] + ROUNDING:
        return math.inf
    if level < heights[0] - ROUNDING:
        return math.nan
    return float(numpy.exp(numpy.interp(level, heights, numpy.log(cost[corners]))))


def times_at(arm: Points, dense: Points, level: float, weights: numpy.ndarray[Any, Any]) -> tuple[float, bool]:
    """Dense's cost over the arm's at a level, with seeds weighted, and whether dense gets there; where it does not, the
    cost of its best point stands for it. 0 where the arm does not get there; NaN where either needs less than its
    cheapest point.
    """
    own = cost_on_front(arm.cost, arm.recall @ weights, level)
    recall = dense.recall @ weights
    other = cost_on_front(dense.cost, recall, level)
    if math.isinf(own) or math.isnan(own):
        return (0.0 if math.isinf(own) else math.nan), False
    bound = float(dense.cost[front(dense.cost, recall)[-1]])
    return (bound if math.isinf(other) else other) / own, not math.isinf(other)


def multipliers(arm: Points, dense: Points, levels: tuple[float, ...] = LEVELS) -> list[dict[str, Any]]:
    """recall, times, low, high, at_least for each level between the cheapest points of both and the arm's best.

    The interval is a paired bootstrap's: seeds are drawn with replacement, the same for all points of both arms, as
    all arms see the same documents in the same order on a seed. A draw in which the arm misses the level counts as 0,
    and one in which the cheapest point of either exceeds it says nothing.
    at_least: dense has no run that reaches the level; times, low and high are lower bounds.
    """
    count = arm.recall.shape[1]
    draws = numpy.random.default_rng(0).multinomial(count, numpy.full(count, 1 / count), RESAMPLES) / count
    distinct, repeats = numpy.unique(draws, axis=0, return_counts=True)
    found = []
    for level in levels:
        times, gets_there = times_at(arm, dense, level, numpy.full(count, 1 / count))
        if not times > 0:
            continue
        drawn = numpy.array([times_at(arm, dense, level, weights)[0] for weights in distinct])
        low, high = numpy.nanquantile(numpy.repeat(drawn, repeats), [0.025, 0.975])
        found.append(
            {"recall": level, "times": times, "low": float(low), "high": float(high), "at_least": not gets_there}
        )
    return found


def common_seeds(frame: pandas.DataFrame) -> list[int]:
    """Seeds on which most configurations were run; one that lacks any of them is no point."""
    runs = frame[frame["status"] == "ok"]
    configurations = runs.groupby(["arm", "digest"]).ngroups
    counts = runs.drop_duplicates(["arm", "digest", "seed"])["seed"].value_counts()
    return sorted(int(seed) for seed, count in counts.items() if 2 * count > configurations)


def curves(
    frame: pandas.DataFrame, cost: str, reference: str, recall: str = "recall"
) -> dict[str, list[dict[str, Any]]]:
    """multipliers of each arm but the reference, of one world; none where there is nothing to compare with."""
    seeds = common_seeds(frame)
    points = points_of(frame, cost, reference, seeds, recall)
    dense = points.pop(reference, None)
    return {} if dense is None or not seeds else {name: multipliers(own, dense) for name, own in points.items()}


def quoted(curve: list[dict[str, Any]], level: float = 0.5) -> str:
    """The multiplier at one level as text: 5.2 [4.8, 5.9]; at least 17 [15, 19]; a dash where the arm misses it."""
    for entry in curve:
        if entry["recall"] == level:
            text = f"{entry['times']:.1f} [{entry['low']:.1f}, {entry['high']:.1f}]"
            return f"at least {text}" if entry["at_least"] else text
    return "-"
