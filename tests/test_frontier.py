"""Fronts against brute force, multipliers in closed form, and intervals against simulated studies."""

import math

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memlayers.studies.frontier import (
    Points,
    complete,
    cost_on_front,
    curves,
    family,
    front,
    gap_at,
    multipliers,
    quoted,
    shift_of_seeds,
)
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
    found = multipliers(own, dense, (0.1, 0.2, 0.3, 0.5, 0.8, 0.9), math.inf)
    assert [entry["recall"] for entry in found] == [0.2, 0.3, 0.5, 0.8]
    for entry in found:
        assert entry["times"] == pytest.approx(5.0) and not entry["at_least"]
        assert entry["low"] <= 5.0 + 1e-9 and entry["high"] >= 5.0 - 1e-9


def test_levels_that_dense_misses_are_bounds_and_those_below_the_cheapest_runs_are_left_out():
    dense, own = arm((10, 0.2), (1000, 0.6)), arm((1, 0.3), (16, 0.9))
    (half,) = multipliers(own, dense, (0.4,), math.inf)
    assert half["times"] == pytest.approx(100 / 16 ** (1 / 6)), "halfway in recall is halfway in log cost"
    (bound,) = multipliers(own, dense, (0.9,), math.inf)
    assert bound["at_least"] and bound["times"] == pytest.approx(1000 / 16)
    assert multipliers(own, dense, (0.1, 0.25, 0.95), math.inf) == []


def test_shifts_are_those_of_each_seeds_own_front_where_seeds_lie_close():
    generator = numpy.random.default_rng(1)
    cost, mean = numpy.array([1.0, 10.0, 100.0]), numpy.array([[0.1], [0.4], [0.9]])
    own = Points(cost, mean + 1e-5 * generator.standard_normal((3, SEEDS)))
    for level in (0.2, 0.35, 0.75):  # at a point itself, seeds take either slope
        at = math.log(cost_on_front(cost, own.mean, level))
        each = [math.log(cost_on_front(cost, own.recall[:, seed], level)) - at for seed in range(SEEDS)]
        assert shift_of_seeds(own, level) == pytest.approx(each, rel=1e-2, abs=1e-8)
        assert abs(shift_of_seeds(own, level)).max() > 1e-6


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.05))
def test_seeds_that_move_both_arms_alike_leave_the_multiple_certain(seed, spread):
    noise = spread * numpy.random.default_rng(seed).standard_normal((1, SEEDS))
    line = numpy.array([[0.2], [0.5], [0.8]]) + noise  # of one slope
    dense, own = Points(numpy.array([10.0, 100.0, 1000.0]), line), Points(numpy.array([1.0, 10.0, 100.0]), line)
    (entry,) = multipliers(own, dense, (0.5,), math.inf)
    assert (entry["low"], entry["high"]) == pytest.approx((10.0, 10.0)) and entry["n"] == SEEDS


def test_the_interval_of_a_multiple_covers_it_in_19_of_20_studies():
    """Of a line of slope 0.3 a decade: its height varies from seed to seed, that of dense by itself."""
    generator, cost, covered, studies = numpy.random.default_rng(0), numpy.array([10.0, 100.0, 1000.0]), 0, 2000
    for _ in range(studies):
        arms = [numpy.array([[0.2], [0.5], [0.8]]) + 0.02 * generator.standard_normal((3, SEEDS)) for _ in range(2)]
        (entry,) = multipliers(Points(cost / 10, arms[0]), Points(cost, arms[1]), (0.6,), math.inf)
        covered += entry["low"] <= 10 <= entry["high"]
    assert 0.93 < covered / studies < 0.97


def test_seeds_count_that_all_points_around_the_level_have():
    nan = math.nan
    dense = Points(numpy.array([1.0, 10.0, 100.0]), numpy.array([[0.1, 0.1, 0.1], [0.4, 0.5, nan], [0.9, 0.8, 0.9]]))
    own = Points(numpy.array([1.0, 10.0]), numpy.array([[0.4, 0.5, 0.4], [0.9, 0.95, 1.0]]))
    (entry,) = multipliers(own, dense, (0.6,), math.inf)
    assert entry["n"] == 2 and entry["low"] < entry["times"] < entry["high"]
    alone = multipliers(Points(own.cost, own.recall[:, :1]), Points(dense.cost, dense.recall[:, :1]), (0.6,), math.inf)
    assert alone[0]["n"] == 1 and math.isnan(alone[0]["low"]) and "[" not in quoted(alone, 0.6)


def test_no_multiple_is_read_between_runs_that_are_far_apart():
    near, far = arm((1.0, 0.2), (2.9, 0.5)), arm((10.0, 0.2), (30.1, 0.5), (60.0, 0.9))
    assert [entry["recall"] for entry in multipliers(near, far, (0.2, 0.3, 0.5), 3)] == [0.2, 0.5]
    assert [entry["recall"] for entry in multipliers(far, near, (0.2, 0.3, 0.5, 0.6), 3)] == [0.2, 0.5, 0.6]
    assert len(multipliers(near, far, (0.2, 0.3, 0.5), math.inf)) == 3 and len(multipliers(near, far, (0.3,))) == 0
    assert [gap_at(far, level) for level in (0.2, 0.5, 0.7)] == [1.0, 1.0, 60 / 30.1]


def test_tables_of_another_size_have_a_curve_of_their_own():
    larger = [one | {"config.num_keys": 16} for one in runs("memory", "large", 10, {0: 0.9, 1: 0.9})]
    frame = pandas.DataFrame(
        runs("dense", "a", 40, {0: 0.2, 1: 0.2})
        + runs("dense", "b", 100, {0: 0.8, 1: 0.8})
        + runs("memory", "c", 4, {0: 0.3, 1: 0.3})
        + runs("memory", "d", 10, {0: 0.5, 1: 0.5})
        + larger
    )
    found = curves(frame, "training_flops", "dense")
    assert sorted(found) == ["memory", "memory, num_keys = 16"]
    wide = frame.assign(training_flops=frame["training_flops"].replace(40, 25))  # a gap of four
    assert [entry["recall"] for entry in curves(wide, "training_flops", "dense")["memory"]] == []
    assert quoted(found["memory"], 0.5) == "6.3 [6.3, 6.3]" and quoted(found["memory, num_keys = 16"], 0.5) == "-"


def test_configurations_that_lack_a_seed_do_not_narrow_the_others():
    frame = pandas.DataFrame(
        runs("dense", "a", 10, {0: 0.2, 1: 0.3})
        + runs("dense_4x", "b", 40, {0: 0.5, 1: 0.6, 2: 0.55})
        + runs("memory", "c", 10, {0: 0.5, 1: 0.6})
        + runs("memory", "d", 1, {0: 0.9})
    )
    assert set(complete(frame)["digest"]) == {"a", "b", "c"}
    assert family("dense_4x", "dense") == "dense" != family("denser", "dense")
    (curve,) = curves(frame, "training_flops", "dense").values()
    assert [(entry["recall"], entry["at_least"]) for entry in curve] == [(0.55, False)]
    assert curve[0]["times"] == pytest.approx(4.0) and quoted(curve, 0.55).startswith("4.0 [")
    assert quoted(curve, 0.9) == "-"
    assert curves(frame[frame["arm"] == "memory"], "training_flops", "dense") == {}


def test_an_empty_folder_has_an_empty_summary():
    assert summary([]) == {"studies": {}}
