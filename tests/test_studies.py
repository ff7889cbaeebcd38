"""Tables of studies over a setting, against hand-made records; the fitted law against numpy and a law that is known."""

import math
import re

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memlayers.studies.old_studies import (
    draw_plateaus,
    grid,
    plateau_tables,
    power_law,
    rate_tables,
    robustness_tables,
    stay,
    world_tables,
)
from memlayers.studies.table import t95
from tests.test_table import fake_record


def with_curve(arm: str, seed: int, curve: list[tuple[float, float]], floor: float = 0.0) -> dict:
    record = fake_record(arm, seed, curve[-1][1])
    record["training"]["curve"] = [{"exposures": exposures, "recall": recall} for exposures, recall in curve]
    record["recall"]["floor"] = floor
    return record


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n") if line.startswith("|")]


def test_rates_stand_in_order_with_and_without_muon_and_the_best_of_an_arm_is_bold():
    studies = {
        "rates_None_0.01": {"w": [fake_record("dense", 0, 0.5), fake_record("memory", 0, 0.6)]},
        "rates_None_0.003": {"w": [fake_record("dense", 0, 0.25)], "v": [fake_record("dense", 0, 0.1)]},
        "rates_0.02_0.003": {"w": [fake_record("dense", 0, 0.75)]},
        "rated": {"w": [fake_record("dense", 0, 0.9)]},
    }
    found = rate_tables(studies)
    assert found.index("v:\n\n| arm | 0.003 |") < found.index("w:\n\n| arm | 0.003 | 0.01 |")
    assert cells(found.split("w:")[1])[2:] == [
        ["dense, AdamW", "0.250", "0.500"],
        ["dense, Muon 0.02", "**0.750**", "-"],
        ["memory, AdamW", "-", "**0.600**"],
    ]


def test_robustness_is_told_against_the_middle_over_the_seeds_of_both():
    recalls = {("0.001", "5.0"): 0.6, ("0.003", "5.0"): 0.8, ("0.009", "5.0"): 0.72, ("0.003", "15.0"): 0.88}
    studies = {
        f"robustness_{down}_{across}": {"w": [fake_record("memory", seed, recall) for seed in (0, 1)]}
        for (down, across), recall in recalls.items()
    }
    studies["robustness_0.003_1.7"] = {"w": [fake_record("memory", 0, 0.4), fake_record("memory", 7, 0.48)]}
    assert cells(robustness_tables(studies))[2:] == [
        ["0.001", "-", "0.600 (-25%), n = 2", "-"],
        ["0.003", "0.440 (-50%), n = 2", "0.800, n = 2", "0.880 (+10%), n = 2"],
        ["0.009", "-", "0.720 (-10%), n = 2", "-"],
    ]


@given(
    xs=st.lists(st.integers(1, 10**6), min_size=2, max_size=9, unique=True),
    noise=st.lists(st.floats(-1, 1), min_size=9, max_size=9),
    exponent=st.floats(-2, 2),
)
def test_the_law_is_numpys_line_in_logarithms(xs, noise, exponent):
    assume(max(xs) / min(xs) > 1.1)
    points = [(x, 3.0 * x**exponent * math.exp(e)) for x, e in zip(xs, noise, strict=False)]
    law = power_law(points)
    x, y = numpy.log(numpy.array(points)).T
    if len(xs) > 4:
        line, cov = numpy.polyfit(x, y, 1, cov=True)
        assert law.half == pytest.approx(t95(len(xs) - 2) * cov[0, 0] ** 0.5, rel=1e-6, abs=1e-9)
    else:
        line = numpy.polyfit(x, y, 1)
    assert (law.exponent, math.log(law.factor)) == pytest.approx(tuple(line), rel=1e-6, abs=1e-6)


def test_one_size_has_no_law_and_two_points_no_interval():
    assert power_law([]) is None and power_law([(5, 1.0), (5, 2.0)]) is None
    assert power_law([(1, 1.0), (10, 100.0)]) == pytest.approx((1.0, 2.0, None))


def test_plateaus_are_fitted_over_the_runs_that_left_it(tmp_path):
    def leaving(seed: int, after: float) -> dict:
        return with_curve("memory", seed, [(after, 0.05), (100.0, 1.0)])

    studies = {
        "plateau_bytes_100": {"w": [leaving(0, 1.0), with_curve("memory", 1, [(100.0, 0.01)])]},
        "plateau_bytes_10000": {"w": [leaving(0, 10.0), with_curve("dense", 0, [(100.0, 0.01)])]},
        "plateau_pairs_100": {"w": [leaving(0, 2.0)]},
    }
    first, second = plateau_tables(studies).split("\n\nw, pairs:")
    assert first.startswith("w, bytes:")
    assert cells(first) == [
        ["arm \\ subjects N", "100", "10,000", "exposures"],
        ["---"] * 4,
        ["dense", "-", "- (0 of 1)", "-"],
        ["memory", "1.00 (1 of 2)", "10.00", "0.1 N^(0.50)"],
    ]
    assert cells(second)[2] == ["memory", "2.00", "-"]
    written = draw_plateaus(studies, tmp_path / "plateau")
    assert [path.suffix for path in written] == [".png", ".svg"] and all(path.stat().st_size for path in written)
    assert draw_plateaus({"learning_rate_1": studies["plateau_pairs_100"]}, tmp_path / "none") == []
    assert re.search("w, bytes.*w, pairs", written[1].read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("runs", "text"), [([], "-"), ([None], "- (0 of 1)"), ([1.0, 2.0], "1.50"), ([1.0, None, 3.0], "2.00 (2 of 3)")]
)
def test_a_stay_says_of_how_many(runs, text):
    assert stay(runs) == text


def test_a_grid_and_the_tables_of_worlds():
    assert grid("a", ["b"], {"c": ["d"]}) == "| a | b |\n| --- | --- |\n| c | d |"
    found = world_tables({"z": [fake_record("dense", 0, 0.5)], "y": [fake_record("dense", 0, 0.25)]})
    assert [found.index("y:"), found.index("0.250")] == sorted([found.index("y:"), found.index("0.250")])
    assert found.index("0.250") < found.index("z:") < found.index("0.500")
