"""The one table: intervals and pairing against scipy's own tests, counts of what is missing, layouts, sentences."""

import io
import math

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import layout, record
from rich.console import Console
from scipy import stats

from memlayers.studies.frame import framed
from memlayers.studies.table import estimate, interval, markdown, pivot, screen, shown, table, verdict

DENSE, MEMORY = (0.10, 0.14, 0.11), (0.50, 0.62, 0.55)


MIXED = ((4, 0, 0.5), (8, 0, 0.6), (8, 1, 0.7))  # topk, seed, recall


def runs(arm="memory", values=MEMORY, **changes):
    return [record(arm, seed, value, **changes) for seed, value in enumerate(values)]


def row_of(rows, **named):
    for name, value in named.items():
        rows = rows[rows[name] == value]
    (found,) = (row for _, row in rows.iterrows())
    return found


def test_mean_interval_and_paired_difference_are_scipys():
    rows = table(framed([*runs(), *runs("dense", DENSE)]), layout())
    memory = row_of(rows, arm="memory")
    low, high = stats.ttest_1samp(MEMORY, 0).confidence_interval(0.95)
    assert (memory["recall"], memory["recall_low"], memory["recall_high"]) == pytest.approx(
        (numpy.mean(MEMORY), low, high)
    )
    low, high = stats.ttest_rel(MEMORY, DENSE).confidence_interval(0.95)
    found = memory["difference"], memory["difference_low"], memory["difference_high"], memory["pairs"]
    assert found == pytest.approx((numpy.mean(MEMORY) - numpy.mean(DENSE), low, high, 3))
    dense = row_of(rows, arm="dense")
    assert dense["reference"] and math.isnan(dense["difference"]) and list(rows["arm"]) == ["dense", "memory"]


def test_what_no_run_has_but_runs_may_is_an_empty_column_and_other_keys_are_refused():
    one = record("memory", 0, 0.5, config={"model": {"before": None}, "topk": 4})
    one["recall"]["by_exposures"] = {"4-15": 0.5}
    frame = framed([one])
    readouts = ["recall", "recall.by_exposures.1-3", "recall.by_exposures.4-15"]
    rows = table(frame, layout(rows=["arm", "model.before.kind"], readouts=readouts))
    assert list(rows["model.before.kind"]) == ["-"] and rows[readouts].iloc[0].tolist()[::2] == [0.5, 0.5]
    assert rows["recall.by_exposures.1-3"].isna().all()
    for key, changes in (("topc", {"rows": ["topc"]}), ("model.bef", {"rows": ["model.bef"]})):
        with pytest.raises(ValueError, match=rf"report\.rows: {key} is in no record"):
            table(frame, layout(**changes))
    for place, value in (("readouts", ["recal"]), ("x", "topc"), ("columns", "topc")):
        with pytest.raises(ValueError, match=rf"report\.{place}: (recal|topc) is in no record"):
            table(frame, layout(**{place: value}))
    assert "recall" in table(frame, layout(x="topk", columns="topk"))


def test_pairs_are_of_seeds_that_both_have():
    rows = table(framed([*runs(), record("dense", 1, 0.1), record("dense", 7, 0.9)]), layout())
    memory = row_of(rows, arm="memory")
    assert (memory["pairs"], memory["difference"]) == (1, pytest.approx(MEMORY[1] - 0.1))
    assert math.isnan(memory["difference_low"])


@given(st.permutations(range(6)))
def test_the_order_of_records_does_not_matter(order):
    found = [*runs(), *runs("dense", DENSE)]
    pandas.testing.assert_frame_equal(
        table(framed([found[i] for i in order]), layout()).reset_index(drop=True),
        table(framed(found), layout()).reset_index(drop=True),
    )


def test_failed_runs_count_as_missing_and_never_as_zero():
    rows = table(framed([*runs(), record("memory", 3, error="FloatingPointError: nan")]), layout())
    memory = row_of(rows, arm="memory")
    assert (memory["n"], memory["runs"], memory["recall"]) == (3, 4, pytest.approx(numpy.mean(MEMORY)))
    assert shown(rows, layout())["n"].tolist() == ["3 of 4"]
    rows = table(framed([*runs(), record("dense", 1, 0.2)]), layout())  # two of three were never run
    assert shown(rows, layout())["n"].tolist() == ["1 of 3", "3"]
    rows = table(framed([record("memory", 0, error="no")]), layout())
    assert rows["n"].tolist() == [0] and math.isnan(rows["recall"].iloc[0])
    assert "recall" not in shown(rows, layout())


def test_readouts_that_a_world_lacks_are_left_out_and_seconds_are_a_median():
    rows = table(framed([record(seed=s, seconds=t) for s, t in enumerate((1.0, 2.0, 90.0))]), layout())
    assert rows["seconds"].iloc[0] == 2.0 and "held_out" not in shown(rows, layout())
    assert "held_out" in shown(table(framed(runs(held_out=0.2)), layout()), layout())


def swept():
    return [
        record(arm, seed, (1 if arm == "memory" else 0.1) * k / 20 + seed / 100, axes={"topk": k}, digest=f"{arm}{k}")
        for k in (16, 4, 8)
        for arm in ("memory", "dense")
        for seed in (0, 1)
    ]


def test_the_reference_is_the_one_of_the_same_other_axes_and_numbers_are_in_order():
    rows = table(framed(swept()), layout())
    assert list(zip(rows["arm"], rows["topk"], strict=True)) == [
        *(("dense", k) for k in ("4", "8", "16")),
        *(("memory", k) for k in ("4", "8", "16")),
    ]
    assert row_of(rows, arm="memory", topk="8")["difference"] == pytest.approx(0.9 * 8 / 20)


def test_a_row_without_a_value_on_an_axis_is_compared_with_the_reference_without_one():
    made = [
        record(arm, seed, value + seed / 100, axes={"pieces": pieces}, digest=f"{arm}{pieces}")
        for pieces, of_dense in ((None, 0.3), (500, 0.1))
        for arm, value in (("dense", of_dense), ("memory", 0.5))
        for seed in (0, 1)
    ]
    rows = table(framed(made), layout(rows=["arm", "pieces"]))
    memory = rows[rows["arm"] == "memory"].set_index("pieces")
    assert memory["difference"].to_dict() == {"-": pytest.approx(0.2), "500": pytest.approx(0.4)}


def test_a_row_is_never_compared_with_the_reference_at_another_value_of_any_axis():
    made = [
        record(arm, seed, 0.5, axes={"rates": rates, "topk": topk}, digest=f"{arm}{rates}{topk}")
        for arm, rates, topk in (("dense", "a", 4), ("dense", "a", 8), ("dense", "b", 8), ("memory", "b", 4))
        for seed in (0, 1)
    ]
    rows = table(framed(made), layout(rows=["arm", "rates", "topk"]))
    assert row_of(rows, arm="memory")["pairs"] == 0


def test_any_axis_may_hold_the_reference():
    rows = table(framed(swept()), layout(reference={"topk": 4}))
    assert row_of(rows, arm="dense", topk="16")["difference"] == pytest.approx(0.1 * 12 / 20)
    assert rows["reference"].sum() == 2


def test_the_interval_of_a_share_ends_at_0_and_1_and_no_other_does():
    values = pandas.Series([0.2, 0.9])
    assert estimate("held_out", values) == {"held_out": pytest.approx(0.55), "held_out_low": 0, "held_out_high": 1}
    assert estimate("difference", values)["difference_high"] == pytest.approx(0.55 + 12.7062 * 0.35, abs=1e-3)


def test_a_row_without_a_value_of_an_axis_is_compared_at_its_own_values_of_the_others():
    """Dense was tuned to spend on width at few exposures, and on depth at many; a memory has no such choice."""
    spent = {4: "width", 8: "depth"}
    cells = [
        record(arm, seed, 0.1 * k if arm == "dense" else 0.9, digest=f"{arm}{k}", axes={"topk": k} | spend)
        for k, way in spent.items()
        for arm, spend in (("dense", {"match.spend": way}), ("memory", {"match.spend": None}))
        for seed in (0, 1)
    ]
    rows = table(framed(cells), layout())
    assert row_of(rows, arm="memory", topk="4")["difference"] == pytest.approx(0.5)
    assert row_of(rows, arm="memory", topk="8")["difference"] == pytest.approx(0.1)


def test_a_cell_lacks_seeds_that_half_of_the_others_have_and_none_that_few_do():
    cells = {("a", 4): 5, ("a", 8): 3, ("b", 4): 3, ("b", 8): 2}
    runs = [
        record(arm, seed, digest=f"{arm}{k}", axes={"topk": k}) for (arm, k), n in cells.items() for seed in range(n)
    ]
    found = shown(table(framed(runs), layout()), layout())
    assert dict(zip(zip(found["arm"], found["topk"], strict=True), found["n"], strict=True)) == {
        ("a", "4"): "5", ("a", "8"): "3", ("b", "4"): "3", ("b", "8"): "2 of 3"
    }  # fmt: skip


def test_what_is_compared_stands_first_with_the_difference_beside_it():
    runs = [record(arm, seed, 0.9, held_out=0.1 * seed) for arm in ("memory", "dense") for seed in (0, 1)]
    own = layout(y="held_out", rows=["arm"])
    assert list(shown(table(framed(runs), own), own).columns)[:4] == ["arm", "held_out", "difference", "recall"]


def test_columns_stand_side_by_side_in_numeric_order():
    rows = table(framed(swept()), layout())
    wide = pivot(rows, "topk", "recall")
    assert list(wide.columns) == ["arm", "4", "8", "16"]
    assert (
        wide.loc[wide["arm"] == "memory", "8"].iloc[0]
        == f"{interval(row_of(rows, arm='memory', topk='8'), 'recall')}, n = 2"
    )
    assert markdown(rows, layout(columns="topk")).startswith("| arm")


def test_declared_rows_are_the_axes():
    rows = table(
        framed([one for one in swept() if one["arm"] == "memory"]), layout(rows=["topk"], reference={"topk": 4})
    )
    assert list(rows.columns[:3]) == ["study", "world", "topk"]


def test_a_cell_never_mixes_configurations_whatever_rows_are_declared():
    made = [record("memory", seed, value, digest=f"d{topk}", config={"topk": topk}) for topk, seed, value in MIXED]
    rows = table(framed([*made, record("dense", 0, 0.1, config={"topk": 4})]), layout(rows=["arm"]))
    memory = rows[rows["arm"] == "memory"]
    assert dict(zip(memory["topk"], memory["recall"], strict=True)) == {"4": 0.5, "8": pytest.approx(0.65)}
    assert sorted(memory["n"]) == [1, 2]


def test_an_unknown_readout_to_compare_by_is_one_line():
    with pytest.raises(ValueError, match=r"recal is in no record"):
        table(framed(runs()), layout(y="recal"))


@pytest.mark.parametrize(
    ("recalls", "said"),
    [
        (MEMORY, "On w, recall is 0.557 [0.407, 0.706] for memory and 0.117 [0.065, 0.168] for dense: +0.440 "),
        ((0.13, 0.10, 0.12), "no clear difference."),
    ],
)
def test_the_verdict_says_what_came_out_whichever_way(recalls, said):
    assert said in verdict(table(framed([*runs(values=recalls), *runs("dense", DENSE)]), layout()), layout())
    assert "nothing stands beside a reference" in verdict(table(framed(runs()), layout()), layout())


def test_a_narrow_terminal_cuts_off_no_column():
    rows = table(framed([*runs(), *runs("dense", DENSE)]), layout())
    for width in (60, 80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(screen("title", rows, layout(), width))
        text = console.export_text()
        assert "0.557" in text and "50,000" in text and "…" not in text


def test_the_numbers_survive_parquet_and_csv(tmp_path):
    rows = table(framed([*runs(), *runs("dense", DENSE)]), layout())
    rows.to_parquet(tmp_path / "t.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "t.parquet"), rows)
