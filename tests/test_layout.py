"""study.yaml beside the records of a study: its question, its commands, and how its table is laid out."""

import dataclasses
import shlex

import pytest
from commands import CHOICES, composed
from stubs import tiny

from memlayers.config.run import ReportConfig
from memlayers.studies.layout import FILE, read_layout, write_layout

DEFAULTS = dataclasses.asdict(ReportConfig()) | {"commands": [], "verdict": ""}


def test_without_a_file_the_layout_is_the_default(tmp_path):
    assert read_layout(tmp_path) == read_layout(tmp_path / "nowhere") == DEFAULTS


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_the_layout_of_an_experiment_comes_back_with_its_command(experiment, tmp_path):
    jobs = [dataclasses.replace(job, results=str(tmp_path)) for job in composed(f"experiment={experiment}")]
    (tmp_path / experiment).mkdir()
    write_layout(jobs, [f"experiment={experiment}"])
    found = read_layout(tmp_path / experiment)
    commands = [f"python scripts/train.py experiment={experiment}"]
    assert found == dataclasses.asdict(jobs[0].report) | {"commands": commands, "verdict": ""}
    assert [path.name for path in tmp_path.rglob("*.*")] == [FILE]


def test_a_reference_may_be_of_every_arm_its_own():
    (job, *_) = composed("experiment=beyond_quantization")
    assert set(job.report.reference) == {"quantize.tables", "quantize.weights", "quantize.when"}
    (other,) = composed("arm=dense")
    assert other.report.reference == {"arm": "dense"}


def test_commands_are_added_once_each_and_can_be_typed_again(tmp_path):
    (tmp_path / "mine").mkdir()
    job = tiny(tmp_path, study="mine")
    lines = [["-m", "seed=range(3)"], ["world.path=q'uote (1).csv", "a=${seed}", "b=???"], ["-m", "seed=range(3)"]]
    for words in lines:
        write_layout([job], words)
    commands = read_layout(tmp_path / "mine")["commands"]
    assert [shlex.split(command) for command in commands] == [["python", "scripts/train.py", *w] for w in lines[:2]]
    other = dataclasses.replace(job, report=ReportConfig(question="Why?", columns="seed"))
    write_layout([other], ["x=1"])
    found = read_layout(tmp_path / "mine")
    assert (found["question"], found["columns"], len(found["commands"])) == ("Why?", "seed", 3)


def test_a_verdict_stays_when_more_runs_are_to_come(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FILE).write_text("verdict: It holds.\n")
    write_layout([tiny(tmp_path, study="mine")], ["x=1"])
    assert read_layout(tmp_path / "mine")["verdict"] == "It holds."


def test_a_run_that_declares_no_layout_leaves_the_one_that_is_there(tmp_path):
    declared = tiny(tmp_path, study="one")
    declared.report = ReportConfig(question="Why?", rows=["arm"])
    (tmp_path / "one").mkdir()
    write_layout([declared], ["experiment=one"])
    write_layout([tiny(tmp_path, study="one")], ["study=one"])
    found = read_layout(tmp_path / "one")
    assert (found["question"], found["rows"], len(found["commands"])) == ("Why?", ["arm"], 2)


@pytest.mark.parametrize("content", ["rows: arm", "foo: 3", "reference: [dense]"])
def test_a_key_or_a_type_that_no_layout_has_is_one_line(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError, match=r"study.yaml: [^\n]* is no part of a layout; accepted: [^\n]*$"):
        read_layout(tmp_path)


@pytest.mark.parametrize("content", ["columns: null", "columns: world\nreference: {num_keys: 8}"])
def test_frontiers_need_an_axis_and_an_arm_to_compare_with(tmp_path, content):
    (tmp_path / FILE).write_text(f"frontier: true\n{content}")
    with pytest.raises(ValueError, match=r"study.yaml: report.frontier=true [^\n]*; accepted: with report.columns"):
        read_layout(tmp_path)


def test_each_study_of_a_sweep_has_a_layout_of_its_own(tmp_path):
    jobs = [tiny(tmp_path, study=name, seed=seed) for name in ("one", "two") for seed in (0, 1)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_layout(jobs, ["-m", "study=one,two"])
    assert read_layout(tmp_path / "one") == read_layout(tmp_path / "two") != DEFAULTS


@pytest.mark.parametrize("content", ["[1]", "a: [", "a: b: c", "\x00"])
def test_a_file_that_is_no_layout_is_one_line(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ValueError) as caught:
        read_layout(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / FILE}: not the layout of a study (") and "\n" not in message


@pytest.mark.parametrize(("written", "read"), [("", ""), (" |\n  It holds,\n  twice.\n", "It holds, twice.")])
def test_a_verdict_is_one_line(tmp_path, written, read):
    (tmp_path / FILE).write_text(f"verdict:{written}")
    assert read_layout(tmp_path)["verdict"] == read


@pytest.mark.parametrize("content", ["", "rows: [arm]\n"])
def test_what_a_file_leaves_out_is_as_by_default(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert read_layout(tmp_path) == DEFAULTS | ({"rows": ["arm"]} if content else {})
