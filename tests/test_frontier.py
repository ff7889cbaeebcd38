"""Fronts against brute force, multipliers in closed form, and intervals by paired draws of seeds."""

import itertools
import math

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlayers.studies.frontier import Points, common_seeds, cost_on_front, curves, family, front, multipliers, quoted
from memlayers.studies.summary import summary

SEEDS = 3
points = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 20)), min_size=1, max_size=8, unique_by=lambda one: one[0]
)


def arm(*each: tuple[float, float], spread: float = 0.0) -> Points:
    """Points (cost, mean recall), with seeds that lie `spread` apart."""
    cost, recall = (numpy.array(column, dtype=float) for column in zip(*sorted(each), strict=True))
    return Points(cost, recall[:, None] + spread * numpy.arange(-1, SEEDS - 1))


def runs(arm: str, digest: str, cost: float, recalls: dict[int, float], world: str = "w") -> list[dict]:
    rest = {"world": world, "status": "ok", "config.training.exposures": 16, "config.num_keys": 4, "unknown_auroc": 0.5}
    rest |= {"flops_per_token": cost / 2, "training_flops": cost, "params": cost, "seconds": cost, "digest": digest}
    return [{"arm": arm, "seed": seed, "recall": recall} | rest for seed, recall in recalls.items()]


def brute(cost: numpy.ndarray, recall: numpy.ndarray, level: float) -> float:
    """Between the cheapest run that reaches the level and the best of those that cost less, linear in log cost."""
    x = numpy.log(cost)
    reaches = min((i for i in range(len(x)) if recall[i] >= level), key=lambda i: x[i])
    cheaper = [i for i in range(len(x)) if x[i] < x[reaches]]
    if not cheaper:
        return float(cost[reaches])
    best = max(cheaper, key=lambda i: (recall[i], -x[i]))
    share = (level - recall[best]) / (recall[reaches] - recall[best])
    return float(numpy.exp(x[best] + share * (x[reaches] - x[best])))


@given(points, st.integers(0, 20))
def test_the_front_costs_what_lies_between_the_two_runs_next_to_the_level(each, level):
    own = arm(*((cost**2, recall) for cost, recall in each))  # none as dear as another
    cost, recall = own.cost, own.recall[:, 0]
    corners = front(cost, recall)
    assert (numpy.diff(cost[corners]) > 0).all() and (numpy.diff(recall[corners]) > 0).all()
    at = cost_on_front(cost, recall, level)
    if level > recall.max():
        assert at == math.inf
    elif level < recall[0]:
        assert math.isnan(at), "less than the cheapest run would do"
    else:
        assert at == pytest.approx(brute(cost, recall, level), rel=1e-9)
        dearest = min(cost[recall >= level])
        assert at <= dearest * (1 + 1e-9), "never more than the cheapest run that is there"


def test_of_runs_that_cost_the_same_the_best_one_stands_for_all():
    """The match meets no target exactly: a run that is 1% cheaper and worse makes no step."""
    cost, recall = numpy.array([10.0, 99.0, 100.0]), numpy.array([0.1, 0.2, 0.9])
    assert front(cost, recall) == [0, 2]
    assert cost_on_front(cost, recall, 0.5) == pytest.approx(10**1.5)


def test_a_run_far_away_lends_nothing_to_the_runs_between():
    """Of a curve that rises late, a concave hull would say 0.5 at a cost of 8."""
    cost, recall = numpy.array([1.0, 16.0, 32.0, 64.0]), numpy.array([0.01, 0.05, 0.2, 0.99])
    assert cost_on_front(cost, recall, 0.5) == pytest.approx(32 * 2 ** (0.3 / 0.79))
    assert cost_on_front(cost, recall, 0.05) == pytest.approx(16)


def test_an_arm_that_is_dense_at_a_fifth_of_the_cost_stands_for_five_times():
    dense = arm((10, 0.2), (100, 0.5), (1000, 0.8), spread=0.02)
    own = Points(dense.cost / 5, dense.recall)
    found = multipliers(own, dense, (0.1, 0.2, 0.3, 0.5, 0.8, 0.9))
    assert [entry["recall"] for entry in found] == [0.2, 0.3, 0.5, 0.8]
    for entry in found:
        assert entry["times"] == pytest.approx(5.0) and not entry["at_least"]
        assert entry["low"] <= 5.0 + 1e-9 and entry["high"] >= 5.0 - 1e-9


def test_levels_that_dense_misses_are_bounds_and_those_below_the_cheapest_runs_are_left_out():
    dense, own = arm((10, 0.2), (1000, 0.6)), arm((1, 0.3), (16, 0.9))
    (half,) = multipliers(own, dense, (0.4,))
    assert half["times"] == pytest.approx(100 / 16 ** (1 / 6)), "halfway in recall is halfway in log cost"
    (bound,) = multipliers(own, dense, (0.9,))
    assert bound["at_least"] and bound["times"] == pytest.approx(1000 / 16)
    assert multipliers(own, dense, (0.1, 0.25, 0.95)) == []


def test_the_interval_is_that_of_all_paired_draws_of_seeds():
    generator = numpy.random.default_rng(1)
    dense = Points(numpy.array([1.0, 10.0, 100.0]), numpy.sort(generator.random((3, SEEDS)), axis=0))
    own = Points(numpy.array([0.5, 2.0]), numpy.sort(generator.random((2, SEEDS)), axis=0))
    level = float(own.recall.mean(axis=1).max()) - 0.02
    drawn = []
    for seeds in itertools.product(range(SEEDS), repeat=SEEDS):
        mine, theirs = own.recall[:, seeds].mean(axis=1), dense.recall[:, seeds].mean(axis=1)
        needs, others = cost_on_front(own.cost, mine, level), cost_on_front(dense.cost, theirs, level)
        best = dense.cost[front(dense.cost, theirs)[-1]]
        drawn.append((best if math.isinf(others) else others) / needs)  # 0 where the arm misses it
    (entry,) = multipliers(own, dense, (level,))
    wanted = numpy.nanquantile(drawn, [0.025, 0.975], method="inverted_cdf")
    assert numpy.nanmin(drawn) <= entry["low"] <= entry["times"] + 1e-9 and entry["high"] <= numpy.nanmax(drawn)
    assert (entry["low"], entry["high"]) == pytest.approx(tuple(wanted), rel=0.02)


def test_configurations_that_lack_a_seed_do_not_narrow_the_others():
    frame = pandas.DataFrame(
        runs("dense", "a", 10, {0: 0.2, 1: 0.3})
        + runs("dense_4x", "b", 40, {0: 0.5, 1: 0.6, 2: 0.9})
        + runs("memory", "c", 10, {0: 0.5, 1: 0.6})
    )
    assert common_seeds(frame) == [0, 1] and family("dense_4x", "dense") == "dense" != family("denser", "dense")
    (curve,) = curves(frame, "training_flops", "dense").values()
    assert [(entry["recall"], entry["at_least"]) for entry in curve] == [(0.55, False)]
    assert curve[0]["times"] == pytest.approx(4.0) and quoted(curve, 0.55).startswith("4.0 [")
    assert quoted(curve, 0.9) == "-"
    assert curves(frame[frame["arm"] == "memory"], "training_flops", "dense") == {}


def test_an_empty_folder_has_an_empty_summary():
    assert summary([]) == {"studies": {}}
