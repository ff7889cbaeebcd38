"""results/: runs are taken in whole or not at all, and every text and figure is that of the records."""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas
import pytest
from omegaconf import OmegaConf
from records import layout, record, write

from memlayers.studies import figure
from memlayers.studies.figure import GREY, colour_of, draw, looks_of
from memlayers.studies.files import CONF
from memlayers.studies.frame import RECORDS, framed, read_all
from memlayers.studies.labels import labels_of
from memlayers.studies.layout import FILE, read_layout
from memlayers.studies.panels import axis_of_curves, domain, panels_of
from memlayers.studies.results import commit, redraw, studies_in
from memlayers.studies.sections import filled, headline, render
from memlayers.studies.summary import summary
from memlayers.studies.table import markdown, table

ROOT = Path(__file__).resolve().parent.parent
RUNS = [
    record(arm, seed, 0.1 * seed + (0.5 if arm == "memory" else 0)) for arm in ("memory", "dense") for seed in (0, 1)
]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / RECORDS).read_text().splitlines()]


def test_runs_are_taken_in_sorted_once_and_whole(tmp_path):
    local, results = write(tmp_path / "local" / "s", *RUNS), tmp_path / "results"
    (local / FILE).write_text("question: Why?\ncommands: [python a]\n")
    target = commit(local, results)
    assert target == results / "s" and [(one["arm"], one["seed"]) for one in lines(target)] == [
        ("dense", 0), ("dense", 1), ("memory", 0), ("memory", 1)
    ]  # fmt: skip
    before = (target / RECORDS).read_bytes()
    commit(local, results)
    assert (target / RECORDS).read_bytes() == before
    write(local, record("memory", 2, 0.9), record("memory", 3, error="no"))
    commit(local, results)
    assert len(lines(target)) == 6 and read_layout(target)["commands"] == ["python a"]
    write(local, record("memory", 3, 0.8))  # tried again
    commit(local, results)
    assert lines(target)[-1]["status"] == "ok"


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        (
            {"code": {"commit": "a", "dirty": True, "diff": "d1"}},
            r"memory seed 5 on w was run with uncommitted code \(diff d1\)",
        ),
        ({"code": {"commit": None, "dirty": None, "diff": None}}, "uncommitted code"),
        ({"earlier": [{"code": {"commit": "a", "dirty": True, "diff": "d2"}}]}, r"uncommitted code \(diff d2\)"),
        ({"study": "other"}, r"records of other, s; accepted: those of one study"),
    ],
)
def test_what_is_refused_changes_nothing(tmp_path, strange, said):
    local = write(tmp_path / "local", *RUNS, record("memory", 5) | strange)
    with pytest.raises(ValueError, match=said):
        commit(local, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_run_is_taken_in_once_whichever_of_world_arm_and_seed_its_command_swept(tmp_path):
    plain = record("memory", 0)
    swept = [
        plain | {"axes": plain["axes"] | more}
        for more in ({"world": "w"}, {"arm": "memory"}, {"world": "w", "seed": 0})
    ]
    for number, one in enumerate([plain, *swept]):
        target = commit(write(tmp_path / str(number), one), tmp_path / "results")
    assert len(lines(target)) == 1


def test_another_configuration_of_a_committed_run_is_refused(tmp_path):
    target = commit(write(tmp_path / "one", *RUNS), tmp_path / "results")
    before = (target / RECORDS).read_bytes()
    with pytest.raises(ValueError, match=r"memory seed 0 on w has digest new, and .* has digest-memory"):
        commit(write(tmp_path / "two", record("memory", digest="new")), tmp_path / "results")
    assert (target / RECORDS).read_bytes() == before


def test_results_md_holds_question_command_table_and_verdict_of_each_study(tmp_path):
    local = write(tmp_path / "local", *RUNS)
    asked = {"question": "Does it hold?", "literature": "12 of 24.", "verdict": "It does.", "commands": ["python a=b"]}
    OmegaConf.save(asked, local / FILE)
    commit(local, tmp_path / "results")
    text = render(tmp_path / "results", ("## speed",))
    rows = table(framed(RUNS), layout())
    for part in (
        "## s\n",
        "Does it hold?",
        "**It does.**",
        "In the literature: 12 of 24.",
        "    python a=b",
        "## speed",
    ):
        assert part in text
    assert re.search(r"\| \[s\]\(#s\) +\| w +\| 4 +\| It does\. +\|", text)
    assert markdown(rows, layout()) in text
    with pytest.raises(ValueError, match="no markers"):
        filled("README", "table")
    assert filled("<!-- results -->\nold\n<!-- /results -->", "new") == "<!-- results -->\nnew\n<!-- /results -->"


def test_a_verdict_stays_when_more_runs_are_taken_in(tmp_path):
    target = commit(write(tmp_path / "one", *RUNS), tmp_path / "results")
    OmegaConf.save(read_layout(target) | {"verdict": "It does."}, target / FILE)
    commit(write(tmp_path / "two", record("memory", 2, 0.9)), tmp_path / "results")
    assert read_layout(target)["verdict"] == "It does." and len(lines(target)) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"x": "arm"},
        {"x": "topk", "y": "plateau"},
        {"reference": {}},
        {"reference": {"arm": "dense"}, "x": "params"},
    ],
)
def test_a_figure_of_any_layout_is_the_same_bytes_twice(tmp_path, changes):
    runs = [one | {"axes": {"topk": k}, "digest": f"{one['arm']}{k}"} for one in RUNS for k in (4, 8, 64)]
    for one in runs:
        one["training"] = one["training"] | {"plateau": {"exposures": 2.0, "flops": 1e9}}
    frame = framed([*runs, record("memory", 9, error="no", axes={"topk": 4}, digest="memory4")])
    first = [path.read_bytes() for path in draw(frame, layout(**changes), tmp_path / "a")]
    assert first == [path.read_bytes() for path in draw(frame, layout(**changes), tmp_path / "b")] and len(first) == 2
    assert draw(framed([record("memory", 9, error="no")]), layout(), tmp_path / "c") == []


def test_an_arm_has_one_colour_in_all_figures_and_no_two_lines_look_alike(monkeypatch, tmp_path):
    def looks(*names: str):
        return looks_of({"w": [{"lines": [{"arm": name} for name in names], "points": []}]})

    others = [f"mine{place}" for place in range(7)]
    found = looks(*others, "dense", "dense_2x", "memory", "memory, topk = 4")
    assert found["dense"].colour == found["dense_2x"].colour == GREY
    assert found["memory"].colour == found["memory, topk = 4"].colour == looks("memory", "ngram")["memory"].colour
    assert len(set(found.values())) == len(found) and next(iter(found)) == "mine0"
    assert len({found[name].colour for name in others} | {found["memory"].colour}) == 8, "ours come first"
    many = looks(*(f"memory, topk = {k}" for k in range(64)))
    assert len(set(many.values())) == 64 and len({look.colour for look in list(many.values())[:8]}) == 1
    frontier = {record["arm"] for record in read_all(ROOT / "results/frontier")}
    main = [arm for arm in frontier if arm.partition("_")[0] != "dense"]
    assert len({colour_of(arm) for arm in main}) == len(main) == 8
    for place in ("ffn", "arm"):
        shutil.copytree(CONF / place, tmp_path / place)
    (tmp_path / "ffn" / "another.yaml").write_text("")
    before = {arm: colour_of(arm) for arm in main}
    monkeypatch.setattr(figure, "CONF", tmp_path)
    assert before == {arm: colour_of(arm) for arm in main} and colour_of("another") is not None


NUMBERS = {"arm": ["a", "a", "a", "b", "b", "b"], "k": list("124124"), "world": ["w"] * 6}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "k"),
        ({"k": list("121212")}, None),  # two values make no curve
        ({"k": ["1", "2", "x", "1", "2", "x"]}, None),
        ({"rate": list("123123")}, None),  # of two axes of numbers neither
        ({"arm": list("abcdef")}, None),  # a line would be a point
    ],
)
def test_a_sweep_over_one_axis_of_numbers_is_drawn_as_curves(columns, expected):
    rows = pandas.DataFrame({"study": ["s"] * 6} | NUMBERS | columns)
    assert axis_of_curves(rows, [axis for axis in rows if axis not in ("study", "world")]) == expected


def swept(arm: str, key: str, *values, study: str = "s", world: str = "w") -> list[dict]:
    return [
        record(
            arm, seed, 0.1, study=study, axes={key: value}, config={"v": {key: value}}, digest=f"{arm}{value}{world}"
        )
        | {"world": world}
        for value in values
        for seed in (0, 1)
    ]


def test_words_and_values_that_are_not_there_make_no_curve_and_zero_and_lists_do():
    def first(runs, **changes):
        return panels_of(framed(runs), layout(reference={}, **changes))["w"][0]

    for values in (["middle", 0.25, 0.5], [[0], [1], [0, 1]]):
        assert first(swept("memory", "blocks", *values), x="blocks")["flat"], values
    assert first([*swept("memory", "topk", 1, 8), *swept("dense", "other", 1)], x="topk", rows=["arm", "topk"])["flat"]
    assert not first(swept("memory", "share", 0, 0.5), x="share")["flat"]
    parts = first(swept("memory", "parts", [8, 8], [400, 400]), x="parts")
    assert [one["x"] for one in parts["points"]] == [8, 400] and parts["x"]["scale"] == "log"


def test_names_say_the_arm_also_of_a_single_one_and_the_study_of_several():
    runs = swept("memory", "topk", 4, 8)
    (panel, *_) = panels_of(framed(runs), layout(reference={}))["w"]
    assert sorted(one["x"] for one in panel["points"]) == ["memory, topk = 4", "memory, topk = 8"]
    both = [*swept("memory", "topk", 4), *swept("memory", "topk", 4, study="t")]
    (panel, *_) = panels_of(framed(both), layout(reference={}, rows=["arm"]))["w"]
    assert sorted(one["x"] for one in panel["points"]) == ["memory, s", "memory, t"]


def test_what_is_missing_or_no_number_is_drawn_or_told(tmp_path):
    runs = swept("memory", "topk", 4, 8)
    for one in runs:
        del one["recall"]["floor"]
        one["config"]["model"] = {"before": None}  # where no run has a layer yet
        one["recall"]["bits_per_parameter"] = -0.1 * one["axes"]["topk"]
    frame = framed(runs)
    (panel, *_) = panels_of(frame, layout(reference={}, y="bits_per_parameter"))["w"]
    low, high = domain(panel, "y")
    assert low < -0.8 and high > 0 and draw(frame, layout(reference={}, y="bits_per_parameter"), tmp_path / "a")
    with pytest.raises(ValueError, match=r"report\.x: status is no axis of the table"):
        panels_of(frame, layout(x="status"))
    assert panels_of(frame, layout(reference={}, rows=["arm", "topk", "model.before.kind"]))


def test_the_floor_of_a_world_is_its_own():
    runs = [*swept("memory", "topk", 4, 8), *swept("memory", "topk", 4, 8, world="v")]
    for one in runs:
        one["recall"]["floor"] = 0.1 if one["world"] == "w" else 0.7
    found = panels_of(framed(runs), layout(reference={}))
    assert {world: panels[1]["rules"][0]["y"] for world, panels in found.items()} == {"w": 0.1, "v": 0.7}


def test_what_is_recalled_is_held_out_where_a_world_has_that_and_points_stand_from_the_best_down():
    prose = [record(arm, seed, 0.9, study="s") for arm in ("memory", "dense", "ngram") for seed in (0, 1)]
    for one in prose:
        held_out = {"memory": 0.2, "dense": 0.3, "ngram": 0.7}[one["arm"]] + 0.1 * one["seed"]
        one["world"], one["recall"] = "prose", one["recall"] | {"held_out": held_out}
    terse = [record(arm, seed, 0.1 * len(arm), study="s") for arm in ("memory", "dense", "ngram") for seed in (0, 1)]
    found = panels_of(framed([*prose, *terse]), layout(y="recalled"))
    (of_prose, *_), (of_terse, *_) = found["prose"], found["w"]
    assert [(one["x"], round(one["y"], 3)) for one in of_prose["points"]] == [
        ("ngram", 0.75),
        ("dense", 0.35),
        ("memory", 0.25),
    ]
    assert of_prose["y"]["title"] == "held out" and of_terse["y"]["title"] == "recall"
    assert [one["y"] for one in of_terse["points"]] == pytest.approx([0.6, 0.5, 0.5])


def committed() -> list[Path]:
    return studies_in(ROOT / "results")


def test_results_and_readme_are_those_of_the_committed_records():
    sys.path.insert(0, str(ROOT / "scripts"))
    from report import ARMS, RESULTS, quoted_studies, results_text

    assert committed() and (ROOT / "RESULTS.md").read_text() == results_text()
    readme = (ROOT / "README.md").read_text()
    assert filled(readme, headline(quoted_studies(), ARMS)) == readme
    found = json.loads((RESULTS / "summary.json").read_text())
    assert found == json.loads(json.dumps(summary(committed())))


@pytest.mark.parametrize("folder", committed(), ids=lambda folder: folder.name)
def test_tables_are_those_of_the_committed_records_of_clean_code(folder, tmp_path):
    redraw(folder, tmp_path)
    for name in ("table.md", "table.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()
    assert all((folder / f"figure.{kind}").is_file() for kind in ("png", "svg"))
    assert all(one["code"]["dirty"] is False and one["code"]["commit"] for one in read_all(folder))
    assert read_layout(folder)["verdict"]


def test_lines_are_labelled_by_what_most_do_not_have_and_in_full_where_that_is_not_enough():
    axes = ["arm", "model.blocks", "optim.values.schedule.warmup"]
    rows = pandas.DataFrame(
        [["memory", "[2]", "0.5"], ["random", "[2]", "0.5"], ["memory", "[0]", "0.5"], ["dense", "-", "-"]],
        columns=axes,
    )
    rows["line"] = [", ".join(row) for row in rows.to_numpy()]
    assert labels_of(rows, axes) == ["memory", "random", "memory, blocks = [0]", "dense"]
    wider = rows.assign(spend=["-", "-", "-", "width"])
    assert labels_of(wider, [*axes, "spend"])[3] == "dense", "no other arm has a spend, and dense no other one"
    rows.loc[3] = ["memory", "-", "0.5", "memory, -, 0.5"]
    assert labels_of(rows, axes)[3] == "memory, warmup = 0.5", "two lines would be called memory"
