"""Words made of rows: every number in them is a number of the table."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console
from stubs import fake_record

from memlayers.studies.report import (
    HEAD,
    finding,
    interval,
    markdown,
    readme_section,
    replace_section,
    screen,
    told_apart,
    update,
)
from memlayers.studies.table import Estimate, Row, estimate, multiplier, rows

NUMBER = r"[+-]?\d[\d,]*\.?\d*"


def table_of(seeds: int = 3, **arms: tuple[float, float]) -> list[Row]:
    """Rows of arms given by compute and recall; seeds lie 0.01 apart."""
    return rows(
        [
            fake_record(arm, seed, recall + (seed - (seeds - 1) / 2) / 100, flops=flops)
            for arm, (flops, recall) in arms.items()
            for seed in range(seeds)
        ]
    )


# --------------------------------------------------------------------------- the table


def test_configurations_of_one_arm_are_rows_of_their_own_named_by_what_differs():
    runs = [fake_record("memory", seed, 0.5 + rate, digest=f"d{rate}") for rate in (0.1, 0.2) for seed in (0, 1)]
    for one, rate in zip(runs, (0.1, 0.1, 0.2, 0.2), strict=True):
        one["config"] = {"optim": {"lr": rate, "clip": 1.0}}
    dense = fake_record("dense", 0, 0.3) | {"config": {"optim": {"lr": 7.0}}}
    table = {row.arm: row.recall.mean for row in rows(told_apart([*runs, dense]))}
    assert table == pytest.approx({"dense": 0.3, "memory optim.lr=0.1": 0.6, "memory optim.lr=0.2": 0.7})


def parsed(cell: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(NUMBER, cell)]


recalls = st.floats(0, 1)
big = st.floats(1e3, 1e9)


@given(
    recall=st.lists(recalls, min_size=1, max_size=4),
    held_out=st.none() | recalls,
    bits=st.floats(-3, 3),
    flops=big,
    params=st.integers(1_000, 10**9),
    seconds=st.floats(0, 1e6),
)
def test_the_markdown_table_gives_the_numbers_back(recall, held_out, bits, flops, params, seconds):
    numbers = {"held_out": held_out, "bits": bits, "flops": flops, "params": params, "seconds": seconds}
    records = [fake_record("dense", seed, 0.5) for seed in range(len(recall))]
    records += [fake_record("memory", seed, value, **numbers) for seed, value in enumerate(recall)]
    table = rows(records)
    head, rule, *lines = markdown(table).split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *lines)]
    assert cells[0] == list(HEAD) and rule == "|" + " --- |" * len(HEAD) and len(lines) == 2
    for row, found in zip(table, cells[1:], strict=True):
        own = dict(zip(HEAD, found, strict=True))
        assert own["arm"] == row.arm and own["n"] == str(row.n)
        for name, value in (("recall", row.recall), ("held out", row.held_out), ("vs dense", row.difference)):
            if value is None:
                assert own[name] == ("reference" if name == "vs dense" else "-")
            else:
                wanted = [value.mean] if value.low is None else [value.mean, value.low, value.high]
                assert parsed(own[name]) == pytest.approx(wanted, abs=5.1e-4)
        assert parsed(own["bits/param"]) == pytest.approx([row.bits_per_parameter.mean], abs=5.1e-4)
        assert parsed(own["kFLOPs/token"]) == pytest.approx([row.flops_per_token / 1e3], abs=0.51)
        assert own["params"].endswith("k") and parsed(own["params"]) == pytest.approx([row.parameters / 1e3], abs=0.51)
        assert parsed(own["seconds"]) == pytest.approx([row.seconds], abs=0.51)


def test_the_difference_carries_its_sign_and_an_arm_without_pairs_has_none():
    table = rows([fake_record("dense", 0, 0.5), fake_record("memory", 0, 0.75), fake_record("peer", 1, 0.5)])
    assert [line.split(" | ")[3] for line in markdown(table).split("\n")[2:]] == ["reference", "+0.250", "-"]
    assert interval(Estimate(-0.1, -0.2, 0.0, 3), signed=True) == "-0.100 [-0.200, +0.000]"
    assert interval(None) == "-" and interval(Estimate(0.5, None, None, 1)) == "0.500"


@pytest.mark.parametrize("width", [90, 200])
def test_the_screen_shows_the_same_cells_as_the_markdown_however_narrow(width):
    table = table_of(dense=(1e12, 0.2), memory=(1e12, 0.4))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(screen("my title", table, width))
    shown = captured.get()
    assert "my title" in shown and "…" not in shown and max(map(len, shown.splitlines())) <= width
    cells = {cell.strip("| ") for line in markdown(table).split("\n")[2:] for cell in line.split(" | ")}
    assert all(part in shown for cell in cells for part in cell.split(" [") if cell != "-")


def test_the_screen_leaves_out_a_column_without_any_number():
    table = [replace(row, held_out=None) for row in table_of(dense=(1e12, 0.2), memory=(1e12, 0.4))]
    shown = [column.header for column in screen("", table, 200).columns]
    assert shown == [name for name in HEAD if name not in ("held out", "plateau")]


def test_the_plateau_column_says_of_how_many_seeds():
    (row,) = table_of(memory=(1e12, 0.4))
    cells = [
        markdown([replace(row, n=n, plateau=left)]).split("\n")[2].split(" | ")[HEAD.index("plateau")]
        for n, left in ((2, None), (2, estimate([12.0, 13.0])), (3, estimate([12.0, 13.0])))
    ]
    assert cells == ["-", "12.5", "12.5 (2 of 3)"]


# --------------------------------------------------------------------------- the finding


def test_a_finding_in_full():
    table = table_of(dense=(1e12, 0.2), dense_4x=(4e12, 0.6), memory=(1e12, 0.3), memory_plus=(1e12, 0.4))
    assert finding("cities", table) == (
        "On cities, at equal training FLOPs per token and equal tokens, memory_plus recalls 0.400 of the facts and "
        "dense 0.200: 2.0 times as many (n = 3 seeds, difference +0.200 [+0.200, +0.200]). Dense with four times the "
        "FLOPs recalls 0.600; the compute multiplier of memory_plus is 2.0."
    )


def test_an_interval_that_holds_zero_is_no_difference():
    records = [fake_record("dense", seed, 0.4 + seed / 10) for seed in range(3)]
    records += [fake_record("memory", seed, 0.6 - seed / 10) for seed in range(3)]
    assert "and dense 0.500, no clear difference (n = 3 seeds, difference " in finding("x", rows(records))


def test_equal_parameters_are_named_with_their_price():
    table = table_of(dense=(1e12, 0.2), memory=(1e12, 0.4), dense_params=(8e12, 0.7))
    times = table[-1].flops_per_token / table[1].flops_per_token
    said = f" Dense with as many stored parameters, at {times:.1f} times the FLOPs, recalls 0.700."
    assert finding("cities", table).endswith(said)


def test_a_memory_that_no_dense_arm_reaches():
    table = table_of(dense=(1e12, 0.2), dense_4x=(4e12, 0.3), dense_8x=(8e12, 0.35), memory=(2e12, 0.4))
    assert finding("cities", table).endswith(
        " Dense with four times the FLOPs recalls 0.300; no dense arm reaches memory, so its compute multiplier is "
        "more than 4.0."
    )


def test_a_memory_that_is_worse_than_dense():
    table = table_of(dense=(1e12, 0.5), dense_4x=(4e12, 0.6), memory=(1e12, 0.4))
    assert finding("cities", table).endswith(
        "memory recalls 0.400 of the facts and dense 0.500: 0.8 times as many (n = 3 seeds, difference -0.100 "
        "[-0.100, -0.100]). Dense with four times the FLOPs recalls 0.600; the compute multiplier of memory is at most "
        "1.0."
    )


def test_a_dense_arm_that_recalls_nothing_gives_no_ratio():
    found = finding("cities", table_of(1, dense=(1e12, 0.0), memory=(1e12, 0.4)))
    assert found.endswith("memory recalls 0.400 of the facts and dense 0.000 (n = 1 seeds).") and "inf" not in found


@pytest.mark.parametrize("arms", [{"memory": (1.0, 0.5)}, {"dense": (1.0, 0.5), "dense_4x": (4.0, 0.6)}, {}])
def test_without_both_sides_there_is_no_finding(arms):
    assert finding("cities", table_of(**arms)) == "On cities there is no memory arm beside a dense one yet."


def test_an_interval_is_given_with_the_number_of_its_pairs():
    records = [fake_record("dense", seed, 0.2) for seed in (0, 1, 2)]
    records += [fake_record("memory", seed, 0.4) for seed in (0, 1, 3, 4)]
    assert "(n = 3 seeds, difference +0.200 [+0.200, +0.200] over the 2 that both have)." in finding("x", rows(records))
    one = [fake_record("dense", 0, 0.2), fake_record("dense", 1, 0.2), *records[3:4], fake_record("memory", 5, 0.4)]
    assert finding("x", rows(one)).endswith("2.0 times as many (n = 2 seeds).")


@given(dense=st.lists(st.tuples(st.floats(0.1, 10), recalls), min_size=1, max_size=4), memory=recalls)
def test_every_number_of_a_finding_is_one_of_the_table(dense, memory):
    names = ["dense", "dense_4x", "dense_2x", "dense_8x"][: len(dense)]
    arms = dict(zip(names, dense, strict=True)) | {"memory": (1.0, memory)}
    table = rows([fake_record(arm, 0, recall, flops=flops * 1e12) for arm, (flops, recall) in arms.items()])
    recall = {row.arm: row.recall.mean for row in table}
    found = finding("cities", table)
    assert f"memory recalls {recall['memory']:.3f} of the facts and dense {recall['dense']:.3f}" in found
    if recall["dense"] > 0:
        assert f": {recall['memory'] / recall['dense']:.1f} times as many" in found
    assert ("four times" in found) == ("dense_4x" in recall)
    if "dense_4x" in recall:
        assert f"FLOPs recalls {recall['dense_4x']:.3f}; " in found
        times, reached = multiplier(table, next(row for row in table if row.arm == "memory"))
        assert found.endswith(f" {times:.1f}.") and ("more than" in found) == (not reached)
        smallest = min((row for row in table if row.arm != "memory"), key=lambda row: row.training_flops)
        assert ("at most" in found) == (smallest.recall.mean >= memory)


# --------------------------------------------------------------------------- the README

texts = st.text(st.characters(codec="utf-8"), max_size=40)


@given(before=texts, after=texts, old=st.none() | texts, new=texts, name=st.sampled_from(["a", "memory_vs_dense"]))
def test_a_section_is_replaced_and_the_rest_kept_byte_for_byte(before, after, old, new, name):
    assume(not any("<!--" in text for text in (before, after, old or "", new)))
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    other = "<!-- other -->\nkept\n<!-- /other -->"
    inner = "" if old is None else f"{old}\n"
    text = f"{before}{opening}{inner}{closing}{after}{other}"
    found = replace_section(text, name, new)
    assert found == f"{before}{opening}{new}\n{closing}{after}{other}"
    assert replace_section(found, name, new) == found


HALF = ["", "<!-- a -->\n", "<!-- /a -->", "<!-- /a -->\n<!-- a -->\n", "<!-- b -->\n\n<!-- /b -->"]


@pytest.mark.parametrize("text", HALF)
def test_a_section_without_markers_is_one_line(text):
    with pytest.raises(ValueError) as caught:
        replace_section(text, "a", "new")
    assert str(caught.value) == "the text has no markers <!-- a --> and <!-- /a -->"


def test_the_readme_gets_a_sentence_and_a_table_for_each_world(tmp_path):
    worlds = {name: table_of(dense=(1e12, recall), memory=(1e12, 0.4)) for name, recall in (("b", 0.2), ("a", 0.3))}
    path = tmp_path / "README.md"
    frame = "# title \\1\n\n<!-- memory_vs_dense -->\n{}\n<!-- /memory_vs_dense -->\n\nend\n"
    path.write_text(frame.format("old"))
    update(path, "memory_vs_dense", readme_section(worlds))
    assert path.read_text() == frame.format(readme_section(worlds))
    parts = readme_section(worlds).split("\n\n")
    assert parts == [
        f"**b.** {finding('b', worlds['b'])}", markdown(worlds["b"]),
        f"**a.** {finding('a', worlds['a'])}", markdown(worlds["a"]),
    ]  # fmt: skip
