"""Statistics against numerical integration and the standard library, multipliers against interpolation by numpy."""

import json
import math
import statistics
from functools import cache

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stubs import fake_record

from memlayers.training.record import write_json
from memlayers.studies.table import T95, Estimate, Row, dumps, estimate, load, multiplier, rows, summary

recalls = st.floats(0, 1)


# --------------------------------------------------------------------------- intervals


@cache
def quantile(freedom: int) -> float:
    """Where Student's t density, integrated by Simpson's rule from 0, has 47.5% of its mass; by bisection."""
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)

    def mass(end: float, pieces: int = 2_000) -> float:
        x = numpy.linspace(0, end, pieces + 1)
        y = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        return float((y[0] + y[-1] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum()) * end / pieces / 3)

    low, high = 1.0, 20.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < 0.475 else (low, middle)
    return low


def test_all_constants_are_quantiles_of_students_t():
    assert len(T95) == 15
    assert [round(quantile(freedom), 3) for freedom in range(1, 16)] == list(T95)


@pytest.mark.parametrize("n", [*range(2, 22), 40, 120])
def test_an_interval_is_students_whatever_the_number_of_seeds(n):
    values = [math.sin(7 * index) for index in range(n)]
    found = estimate(values)
    half = quantile(n - 1) * statistics.stdev(values) / math.sqrt(n)
    assert found.n == n and found.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert found.low == pytest.approx(found.mean - half, abs=2e-3 * half)
    assert found.high == pytest.approx(found.mean + half, abs=2e-3 * half)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), shift=st.floats(-100, 100))
def test_an_interval_moves_with_its_values_and_does_not_mind_their_order(values, shift):
    one, turned, moved = estimate(values), estimate(values[::-1]), estimate([value + shift for value in values])
    assert one == turned and one.low <= one.mean <= one.high
    assert moved.high - moved.low == pytest.approx(one.high - one.low, abs=1e-6)
    assert moved.mean == pytest.approx(one.mean + shift, abs=1e-6)


def test_one_seed_has_no_interval():
    assert estimate([0.25]) == Estimate(0.25, None, None, 1)
    assert estimate([0.25]).as_json() == {"mean": 0.25, "low": None, "high": None}
    assert estimate([0.5, 0.5, 0.5]) == Estimate(0.5, 0.5, 0.5, 3)


# --------------------------------------------------------------------------- rows


@given(
    dense=st.dictionaries(st.integers(0, 6), recalls, min_size=1),
    memory=st.dictionaries(st.integers(0, 6), recalls, min_size=1),
    order=st.randoms(use_true_random=False),
)
def test_the_difference_is_paired_by_seed(dense, memory, order):
    records = [fake_record("dense", seed, recall) for seed, recall in dense.items()]
    records += [fake_record("memory", seed, recall) for seed, recall in memory.items()]
    order.shuffle(records)
    first, second = rows(records)
    assert (first.arm, first.difference, first.seeds) == ("dense", None, tuple(sorted(dense)))
    assert (first.n, second.n) == (first.recall.n, second.recall.n) == (len(dense), len(memory))
    assert first.recall == estimate([dense[seed] for seed in sorted(dense)])
    assert second.recall == estimate([memory[seed] for seed in sorted(memory)])
    both = sorted(dense.keys() & memory.keys())
    wanted = estimate([memory[seed] - dense[seed] for seed in both]) if both else None
    assert second.difference == wanted


def test_pairing_takes_out_what_seeds_have_in_common():
    records = [fake_record("dense", seed, seed / 10) for seed in range(5)]
    records += [fake_record("memory", seed, seed / 10 + 0.01) for seed in range(5)]
    dense, memory = rows(records)
    assert memory.recall.low < dense.recall.mean, "unpaired, the intervals overlap"
    assert memory.difference.low == pytest.approx(0.01) == memory.difference.high


def test_a_row_holds_every_number_of_its_records():
    curves = [[(8.0, 0.1), (16.0, 0.5)], [(8.0, 0.3), (16.0, 0.6)]]
    members = [
        fake_record("memory", seed, 0.5 + seed / 10, held_out=0.2 + seed / 5, bits=1.0 + seed, curve=curves[seed])
        for seed in range(2)
    ]
    (one,) = rows(members)
    assert one.held_out == estimate([0.2, 0.4]) and one.bits_per_parameter == estimate([1.0, 2.0])
    assert (one.flops_per_token, one.training_flops, one.parameters, one.floor) == (1e5, 1e12, 50_000, 0.1)
    assert one.curve == [(8.0, pytest.approx(0.2)), (16.0, pytest.approx(0.55))] and one.difference is None
    (terse,) = rows([fake_record("memory", held_out=None)])
    assert terse.held_out is None


@pytest.mark.parametrize(
    ("curve", "left"),
    [
        ([(8.0, 0.1), (16.0, 0.2)], 12.0),  # 0.15 lies half-way
        ([(8.0, 0.3)], 4.0),  # before the first probe: from nothing at no exposures
        ([(8.0, 0.1), (16.0, 0.1500001)], 16.0),
        ([(8.0, 0.2), (16.0, 0.1)], 6.0),  # the first time counts
        ([(8.0, 0.1), (16.0, 0.14)], None),
        ([], None),
    ],
)
def test_the_plateau_ends_where_recall_passes_the_floor(curve, left):
    (one,) = rows([fake_record("memory", curve=curve)])
    assert one.floor == 0.1 and (one.plateau and one.plateau.mean) == (left and pytest.approx(left))


def test_the_plateau_is_that_of_the_seeds_that_left_it():
    curves = [[(8.0, 0.25)], [(8.0, 0.1)], [(4.0, 0.25)]]
    (one,) = rows([fake_record("memory", seed, curve=curve) for seed, curve in enumerate(curves)])
    assert one.n == 3 and one.plateau and one.plateau.n == 2 and one.plateau.mean == pytest.approx(3.6)


@given(seconds=st.lists(st.floats(0.1, 1e4), min_size=1, max_size=9))
def test_seconds_are_the_median_of_the_seeds(seconds):
    (one,) = rows([fake_record("memory", seed, seconds=value) for seed, value in enumerate(seconds)])
    assert one.seconds == pytest.approx(float(numpy.median(seconds)))


def test_the_reference_comes_first_and_the_others_by_compute():
    flops = {"memory": 1.0, "dense_4x": 4.0, "dense": 2.0, "dense_2x": 3.0, "a": 4.0}
    records = [fake_record(arm, flops=value) for arm, value in flops.items()]
    assert [one.arm for one in rows(records)] == ["dense", "memory", "dense_2x", "a", "dense_4x"]
    found = rows(records, reference="memory")
    assert found[0].arm == "memory" and found[0].difference is None and found[1].difference is not None


def test_one_arm_of_two_configurations_is_refused():
    records = [fake_record("memory", 0, digest="aaa"), fake_record("memory", 1, digest="bbb"), fake_record("dense")]
    with pytest.raises(ValueError) as caught:
        rows(records)
    assert str(caught.value) == (
        "arm 'memory' of study 'study' mixes configurations aaa, bbb; keep the records of one, or give the other a "
        "study=NAME of its own"
    )
    rows([fake_record("memory", 0, digest="aaa"), fake_record("dense", 0, digest="bbb")])


# --------------------------------------------------------------------------- compute multiplier


def table_of(*arms: tuple[str, float, float]) -> list[Row]:
    return rows([fake_record(arm, 0, recall, flops=flops) for arm, flops, recall in arms])


def of(table: list[Row], arm: str = "memory") -> tuple[float, bool] | None:
    return multiplier(table, next(row for row in table if row.arm == arm))


def test_a_multiplier_between_two_dense_arms_is_interpolated_in_the_logarithm():
    """Dense recalls 0.2 at 1 and 0.6 at 4 units: 0.4, the middle, at 2; the memory arm itself spends 1.25."""
    table = table_of(("dense", 1e12, 0.2), ("dense_4x", 4e12, 0.6), ("memory", 1.25e12, 0.4))
    assert of(table) == (pytest.approx(2 / 1.25), True)


@pytest.mark.parametrize(
    ("recall", "wanted"),
    [
        (0.1, (1.0, True)),  # the smallest dense arm is better already
        (0.2, (1.0, True)),
        (0.3, (4**0.5, True)),  # half of the way from 1 to 4, over the arm that got worse
        (0.4, (4.0, True)),
        (0.5, (4 * 2**0.5, True)),
        (0.6, (8.0, True)),
        (0.61, (16.0, False)),  # out of reach of all, the largest of which spends 16
    ],
)
def test_a_frontier_that_goes_up_and_down(recall, wanted):
    ladder = [("dense", 1e12, 0.2), ("dense_2x", 2e12, 0.15), ("dense_4x", 4e12, 0.4), ("dense_8x", 8e12, 0.6)]
    table = table_of(*ladder, ("dense_16x", 16e12, 0.5), ("memory", 1e12, recall))
    assert of(table) == (pytest.approx(wanted[0]), wanted[1])


arms = st.lists(st.tuples(st.floats(1e10, 1e14), recalls), min_size=1, max_size=6)


@given(dense=arms, recall=recalls, own=st.floats(1e10, 1e14))
def test_a_multiplier_is_the_inverse_of_the_best_so_far(dense, recall, own):
    table = table_of(*[(f"dense_{index}", *arm) for index, arm in enumerate(dense)], ("memory", own, recall))
    best: list[tuple[float, float]] = []
    for flops, found in sorted(dense):
        if not best or found > best[-1][1]:
            best.append((flops, found))
    times, reached = of(table)
    assert reached == (recall <= best[-1][1])
    if not reached:
        assert times == pytest.approx(max(flops for flops, _ in dense) / own)
    else:
        logs = numpy.interp(recall, [found for _, found in best], [math.log(flops) for flops, _ in best])
        assert times == pytest.approx(math.exp(logs) / own, rel=1e-6)


def test_without_a_dense_arm_there_is_no_multiplier():
    assert of(table_of(("memory", 1e12, 0.5), ("memory_plus", 1e12, 0.6))) is None


# --------------------------------------------------------------------------- files


def stored(folder, record: dict) -> None:
    name = f"{record['arm']}-s{record['seed']}-{record['digest']}.json"
    write_json(folder / record["study"] / record["world"] / name, record)


def test_the_summary_has_a_number_for_each_study_world_and_arm(tmp_path):
    for world in ("cities", "people"):
        for seed in range(3):
            stored(tmp_path, fake_record("dense", seed, 0.2 + seed / 10, world=world, flops=1e12))
            stored(tmp_path, fake_record("memory", seed, 0.4 + seed / 10, world=world, held_out=None, flops=2e12))
    stored(tmp_path, fake_record("memory", 0, 0.3, study="other", world="cities"))
    stored(tmp_path, {**fake_record("memory", 9, world="cities"), "status": "failed"})
    found = summary(tmp_path)
    assert json.loads(dumps(found)) == found and dumps(found).endswith("}\n")
    assert found.keys() == {"studies"} and found["studies"].keys() == {"study", "other"}
    assert found["studies"]["study"].keys() == {"cities", "people"}
    assert found["studies"]["other"].keys() == {"cities"}
    arms = found["studies"]["study"]["people"]["arms"]
    assert arms.keys() == {"dense", "memory"}
    assert arms["memory"] == {
        "n": 3,
        "recall": estimate([0.4 + seed / 10 for seed in range(3)]).as_json(),
        "held_out_recall": None,
        "bits_per_parameter": 1.5,
        "flops_per_token": 2e5,
        "training_flops": 2e12,
        "parameters": 50_000,
        "seconds": 10.0,
        "plateau": None,
    }
    assert arms["dense"]["held_out_recall"] == {"mean": 0.25, "low": 0.25, "high": 0.25}
    single = found["studies"]["other"]["cities"]["arms"]["memory"]
    assert single["n"] == 1 and single["recall"] == {"mean": 0.3, "low": None, "high": None}


def test_the_summary_of_no_records_is_empty_and_of_mixed_ones_refused(tmp_path):
    assert summary(tmp_path) == {"studies": {}} == summary(tmp_path / "nowhere")
    stored(tmp_path, fake_record("memory", 0, digest="aaa"))
    stored(tmp_path, fake_record("memory", 1, digest="bbb"))
    assert len(load(tmp_path)["study"]["world"]) == 2
    with pytest.raises(ValueError, match="mixes configurations aaa, bbb"):
        summary(tmp_path)


def test_records_are_loaded_by_what_they_say_and_only_from_where_records_lie(tmp_path):
    stored(tmp_path, fake_record("memory", 0))
    stored(tmp_path / "local", fake_record("memory", 1))
    write_json(tmp_path / "summary.json", {"studies": {}})
    write_json(tmp_path / "study" / "world" / "other.json", {"status": "ok"})
    (found,) = load(tmp_path)["study"]["world"]
    assert found["seed"] == 0 and load(tmp_path / "local")["study"]["world"][0]["seed"] == 1
    (tmp_path / "study" / "world" / "memory-s2-x.json").write_text("{")
    with pytest.raises(ValueError, match=r"memory-s2-x\.json: not a record"):
        load(tmp_path)
