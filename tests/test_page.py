"""The page: all studies and arms are in it, as records say, and nothing that a record says becomes HTML."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest
from commands import called
from records import layout, record, write

from memlayers.config.digest import digest
from memlayers.studies.cli import jobs_from
from memlayers.studies.figure import GREY, PALETTE, looks_of
from memlayers.studies.frame import framed, read_all
from memlayers.studies.frontier import points_of
from memlayers.studies.layout import read_layout
from memlayers.studies.page.chart import vega_spec
from memlayers.studies.page.commands import command_of, words_of
from memlayers.studies.page.runs import Runs
from memlayers.studies.page.tables import cell, table_of
from memlayers.studies.panels import panels_of
from memlayers.studies.results import studies_in
from memlayers.training.record import with_checksum

pytest.importorskip("vl_convert", reason='vl-convert-python is not installed: pip install -e ".[page]"')
from memlayers.studies.page.write import rendered, section_of
from memlayers.studies.page.write import write as write_page

ROOT = Path(__file__).resolve().parent.parent
EVIL = "</script><script>alert('q')</script>\"><img src=x onerror=alert(1)>"
SPEED = "## speed\n\nHow fast?\n\n    python scripts/bench.py\n\n| width | a |\n|---|---|\n| 32 | 4.9x |\n\n![x](y)"


def runs_of(study: str, arms: tuple[str, ...], **changes) -> list[dict]:
    """Each arm at two budgets on two seeds."""
    return [
        record(
            arm,
            seed,
            0.1 * seed + 0.2 * (1 + place) * steps / 16,
            study=study,
            flops=1e11 * steps * (1 + place),
            axes={"arm": arm, "seed": seed, "training.exposures": steps},
            config={"model": {"ffn": {"kind": arm}}, "num_keys": 8, "training": {"exposures": float(steps)}},
            digest=f"{arm}-{steps}",
        )
        | changes
        for place, arm in enumerate(arms)
        for steps in (4, 16)
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """A study of frontiers and an ordinary one, whose words are not to be trusted."""
    results = tmp_path_factory.mktemp("results")
    front = write(results / "front", *runs_of("front", ("dense", "dense_2x", "memory")))
    command = (
        "python scripts/train.py experiment=front arm=dense,dense_2x,memory training.exposures=4,16 'seed=range(2)'"
    )
    (front / "study.yaml").write_text(
        "question: Why?\nfrontier: true\nrows: [arm, num_keys, training.exposures]\ncolumns: training.exposures\n"
        f"commands: [{json.dumps(command)}]\n"
    )
    strange = f"b<i>{EVIL}"
    other = write(results / "other", *runs_of("other", ("dense", "memory")), record("ngram", error=EVIL, study="other"))
    for one in runs_of("other", (strange,)):
        (other / f"x-s{one['seed']}-{one['axes']['training.exposures']}.json").write_text(
            json.dumps(with_checksum(one))
        )
    (other / "study.yaml").write_text(
        f"question: {json.dumps(EVIL)}\nx: training.exposures\ncommands: [{json.dumps(EVIL)}]\n"
    )
    return [front, other]


class Elements(HTMLParser):
    """Start tags with their attributes, the texts of scripts, and all other text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts, self.text, self.inside = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def page(folders, tmp_path_factory) -> tuple[Path, Elements]:
    path = write_page(folders, tmp_path_factory.mktemp("page") / "deep" / "p.html", (SPEED,))
    return path, Elements(path.read_text())


def test_it_is_one_file_of_its_own_with_each_library_once(page):
    path, found = page
    assert path.stat().st_size < 3_000_000 and [one.name for one in path.parent.iterdir()] == ["p.html"]
    links = [one[key] for _, one in found.tags for key in ("src", "href") if one.get(key)]
    assert links and all(link.startswith(("#", "data:,")) for link in links)
    assert len(found.scripts) == 3, "data, Vega, and the script of the page"
    assert path.read_text().count("window.vegaEmbed=") == 1
    assert "@import" not in path.read_text() and "url(" not in path.read_text().split("</style>")[0]


def test_nothing_that_a_record_says_becomes_html(page):
    _, found = page
    assert "alert(" not in "".join(found.scripts[1:]) and "img" not in dict(found.tags)
    assert found.text.count(EVIL) >= 4, "question, command, arm and error stand there as text"
    assert not any("onerror" in one for _, one in found.tags)
    assert f"b<i>{EVIL}" in {one["title"] for one in json.loads(found.scripts[0])["runs"][1]}, "in data, too"


def test_every_study_arm_and_table_is_there(page, folders):
    _, found = page
    arms = [one["data-arm"] for tag, one in found.tags if "data-arm" in one]
    assert arms[:2] == ["dense", "memory"], "dense_2x has points of dense"
    assert sorted(arms[2:]) == [f"b<i>{EVIL}", "dense", "memory"]
    for said in ("Why?", "speed", "How fast?", "python scripts/bench.py", "dense_2x", "4.9x", "No model is shown"):
        assert said in found.text
    assert {"front", "other", "speed", "slots"} <= {one.get("id") for tag, one in found.tags if tag == "section"}
    numbers = [float(one["data-n"]) for tag, one in found.tags if "data-n" in one]
    means = framed(list(read_all(folders[0]))).groupby("digest")["recall"].mean()
    assert all(any(value == pytest.approx(mean, abs=6e-4) for value in numbers) for mean in means)


def test_a_page_is_the_same_bytes_twice(page, folders):
    assert page[0].read_text() == rendered(folders, (SPEED,))


def test_a_study_whose_runs_all_failed_is_told_without_figures(tmp_path):
    found = Elements(rendered([write(tmp_path / "s", record("memory", error="out of luck", study="s"))]))
    assert "memory seed 0 on w: out of luck" in found.text and "1 failed" in found.text
    assert not any(one.get("class") == "figure" for _, one in found.tags)


def test_points_of_a_frontier_are_its_configurations_and_tell_their_runs(folders):
    found, layout = list(read_all(folders[0])), read_layout(folders[0])
    frame = framed(found)
    runs = Runs(frame, found, [words_of(one) for one in layout["commands"]])
    left, right = panels_of(frame, layout)["w"]
    for arm, points in points_of(frame, "training_flops", "dense").items():
        own = sorted((one["x"], one["y"]) for one in left["points"] if one["arm"] == arm)
        assert own == [pytest.approx(pair) for pair in zip(points.cost, points.mean, strict=True)]
    assert {one["arm"] for one in right["lines"]} == {"memory"}
    (point,) = (one for one in left["points"] if set(frame["arm"][one["runs"]]) == {"dense_2x"} and one["x"] == 32e11)
    told = runs.descriptions[runs.add(frame.loc[point["runs"]])]
    assert told["n"] == 2 and told["settings"] == {"world": "w", "training.exposures": "16", "seed": "0, 1"}
    assert told["command"] == (
        "python scripts/train.py experiment=front world=w arm=dense_2x training.exposures=16 seed=0,1"
    )


def test_a_line_of_multiples_is_in_pieces_between_which_there_are_none():
    """Memory's runs are so far apart in cost that between some recalls no multiple is read."""
    found = []
    for arm, flops, recall in [
        *(("dense", 2.0**power, 0.05 * power) for power in range(1, 20)),
        *(("memory", cost, recall) for cost, recall in ((2, 0.2), (4, 0.4), (64, 0.6), (128, 0.8))),
    ]:
        found += [
            record(
                arm, seed, recall + 0.001 * seed, study="s", flops=flops, digest=f"{arm}{flops}", config={"num_keys": 8}
            )
            for seed in (0, 1)
        ]
    by_world = panels_of(framed(found), layout(frontier=True, reference={"arm": "dense"}, columns=None))
    right = by_world["w"][1]
    pieces = {}
    for mark in right["lines"]:
        pieces.setdefault(mark["piece"], []).append(mark["x"])
    low, high = sorted(pieces.values())
    assert low[-1] <= 0.4 and high[0] >= 0.6
    for levels in (low, high):
        assert [round(50 * level) for level in levels] == list(range(round(50 * levels[0]), round(50 * levels[-1]) + 1))
    layers = vega_spec(right, looks_of(by_world))["layer"][-1]["layer"]
    fields = [one["encoding"].get("detail", {}).get("field") for one in layers]
    assert fields.count("piece") == 2
    assert [mark["piece"] for mark in right["bands"]] == [mark["piece"] for mark in right["lines"]]
    joined = {(mark["x"], mark["y"]) for mark in right["lines"]}
    assert right["bounds"] == [] or not joined & {(mark["x"], mark["y"]) for mark in right["bounds"]}


@pytest.mark.parametrize("x", [None, "training.exposures", "arm", "params"])
def test_points_of_any_layout_are_rows_of_its_table(folders, x):
    found = [one for one in read_all(folders[1]) if one["arm"] in ("dense", "memory")]
    layout, frame = read_layout(folders[1]) | {"x": x}, framed(found)
    panels = panels_of(frame, layout)
    first = panels["w"][0]
    assert [one["flat"] for one in panels["w"]] == ([True, False] if x in (None, "arm") else [False])
    means = frame.groupby("digest")["recall"].mean()
    assert sorted(one["y"] for one in first["points"]) == pytest.approx(sorted(means))
    for point in first["points"]:
        (digest_,) = set(frame["digest"][point["runs"]])
        assert point["y"] == pytest.approx(means[digest_]) and len(point["runs"]) == 2
    for one in panels["w"]:
        marks = [{key: value for key, value in point.items() if key != "runs"} for point in one["points"]]
        spec = vega_spec(one | {"points": marks}, looks_of(panels))
        assert json.loads(json.dumps(spec, default=float))["datasets"]["points"] == marks
        across = spec["layer"][-1]["encoding"]["x"]
        assert across["field"] == ("y" if one["flat"] else "x") and across["type"] == "quantitative"


def committed() -> list:
    """Of the frontier's records some runs of one configuration each, of every kind of command."""
    groups: dict[tuple, list] = {}
    for one in read_all(ROOT / "results/frontier"):
        groups.setdefault((one["world"], one["arm"], one["digest"]), []).append(one)
    kinds = {}
    for runs in groups.values():
        kinds.setdefault(tuple(runs[0]["axes"]), runs)
    return list(kinds.values())


@pytest.mark.parametrize("runs", committed(), ids=lambda runs: "+".join(runs[0]["axes"]))
def test_the_command_of_a_point_makes_the_runs_that_it_stands_for(runs):
    command = command_of(runs, [words_of(one) for one in read_layout(ROOT / "results/frontier")["commands"]])
    jobs = jobs_from(shlex.split(command)[2:])
    assert [one.seed for one in jobs] == [one["seed"] for one in runs]
    assert {(digest(one), one.arm, one.world.name) for one in jobs} == {
        (runs[0]["digest"], runs[0]["arm"], runs[0]["world"])
    }


def test_commands_keep_what_is_not_swept_and_know_files_of_ones_own():
    words = words_of("python scripts/train.py -m arm=dense,mine/bilinear.py model.depth=3 'seed=range(2)' study=s")
    own = record("bilinear", axes={"arm": "bilinear", "seed": 1}, seed=1)
    assert command_of([own], [words]) == (
        "python scripts/train.py model.depth=3 study=s world=w arm=mine/bilinear.py seed=1"
    )
    assert command_of([record("memory")], [words]) is None
    assert words_of("python scripts/finetune.py --world biographies_prose") is None, "no words of train.py"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.812 [0.800, 0.824], n = 3", ("0.812", "[0.800, 0.824], n = 3", 0.812)),
        ("+0.1", ("+0.1", "", 0.1)),
        ("364,948", ("364,948", "", 364948.0)),
        ("0.5, n = 2", ("0.5", "n = 2", 0.5)),
        ("4.9x", ("4.9x", "", 4.9)),
        ("2^14", ("2^14", "", None)),
        ("-", ("-", "", None)),
    ],
)
def test_a_cell_is_sorted_by_the_number_that_it_begins_with(text, expected):
    assert cell(text) == expected


def test_columns_of_numbers_and_of_words_are_told_apart():
    made = table_of("c", pandas.DataFrame({"arm": ["a", "b"], "d": ["reference", "+0.1 [0, 1]"], "e": ["-", "-"]}))
    assert made.columns == [("arm", False), ("d", True), ("e", True)]
    assert section_of(SPEED)["tables"][0].rows[0][1].number == 4.9


def test_arms_have_the_colours_of_the_figures():
    style = (ROOT / "memlayers/studies/page/style.css").read_text()
    light = dict(re.findall(r"--(grey|arm-\d): light-dark\((#\w+)", style))
    assert light == {"grey": GREY} | {f"arm-{place}": colour for place, colour in enumerate(PALETTE)}


def refused(*words: str) -> str:
    done = called("report.py", *words)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_what_cannot_be_shown_is_one_line(folders, tmp_path):
    study = str(folders[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match=r"^--out=.*file/p.html: cannot be written \(.*\); accepted: a writable folder$"
    ):
        write_page(folders, tmp_path / "file" / "p.html")
    with pytest.raises(ValueError, match=r"p.txt: not the name of a page; accepted: FILE.html"):
        write_page(folders, tmp_path / "p.txt")
    with pytest.raises(ValueError, match="no records of a study; accepted: a folder with some"):
        write_page([], tmp_path / "p.html")
    (tmp_path / "p.html").write_text("as it was")
    with pytest.raises(ValueError, match=r"nowhere: no record of a run"):
        write_page([tmp_path / "nowhere"], tmp_path / "p.html")
    assert "RUN.safetensors: not there; accepted: the file of a run with save_model=true" in refused(
        study, "--html", "--out", str(tmp_path / "p.html"), "--model", "RUN"
    )
    assert (tmp_path / "p.html").read_text() == "as it was" and len(list(tmp_path.iterdir())) == 2
    assert refused(study, "--model", "RUN").startswith("memlayers: --model does not go with that; accepted: [FOLDER")


@pytest.mark.slow
def test_the_page_of_all_committed_results_holds_every_study_and_stays_small(tmp_path):
    done = called("report.py", "--html", "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert len(text.encode()) < 3_000_000
    found = Elements(text)
    sections = {one.get("id") for tag, one in found.tags if tag == "section"}
    assert sections >= {folder.name for folder in studies_in(ROOT / "results")} | {"slots"}
    assert len(json.loads(found.scripts[0])["runs"]) > 0 and found.text.count("n = ") > 0
