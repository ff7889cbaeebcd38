"""Scripts as one calls them: exit codes, one line for a mistake, what stands beside the records."""

import os
from pathlib import Path

import pytest
from commands import SMALL, called, small
from records import record

from memlayers import load
from memlayers.studies.cli import verb
from memlayers.training.run import run


def test_a_report_of_own_records_has_a_row_for_each_configuration(tmp_path: Path) -> None:
    for rate in ("1e-3", "2e-3"):
        run(small(tmp_path, f"optim.lr={rate}", "training.steps=1"))
    done = called("report.py", str(tmp_path / "single"))
    assert done.returncode == 0, done.stderr
    for words in ("single, atlas_readings", "optim.lr", "0.001", "0.002"):
        assert words in done.stdout
    empty = called("report.py", str(tmp_path / "none"))
    assert empty.returncode == 2 and empty.stderr.startswith(f"memlayers: {tmp_path / 'none'}: no record")


def test_a_log_gets_plain_lines_even_where_colours_are_forced(tmp_path: Path) -> None:
    """As in a notebook, whose kernel sets FORCE_COLOR for all processes that it starts."""
    words = [*SMALL, "training.steps=2", "-m", "seed=1,2", f"results={tmp_path}"]
    done = called(
        "train.py", *[word for word in words if word != "progress=none"], env=os.environ | {"FORCE_COLOR": "1"}
    )
    assert done.returncode == 0 and "\x1b" not in done.stdout and "run 2 of 2" in done.stdout, done.stderr


def test_ctrl_c_in_a_script_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        verb(main)
    assert caught.value.code == 130 and capsys.readouterr().err == "\nmemlayers: interrupted\n"


@pytest.mark.parametrize("overrides", [["seed=1"], ["-m", "seed=1,2"]])
def test_a_folder_that_cannot_be_written_is_told_once(overrides: list[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = called("train.py", "logger=none", f"results={blocked}", *overrides)
    assert done.returncode == 2 and done.stderr.startswith(f"memlayers: results={blocked}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("overrides", [["-m", "seed=1,2"], ["progress=none"]])
def test_why_runs_failed_is_told_whether_or_not_they_show_progress(overrides: list[str], tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    words = ["world=triples", f"world.path={facts}", f"results={tmp_path}", "logger=none", *overrides]
    done = called("train.py", *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == (2 if "-m" in overrides else 1), done.stderr
    assert all(line.startswith("memlayers: memory seed ") and str(facts) in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["arm=memroy"], "arm=memroy: no such choice; did you mean memory?"),
        (["arm=memory", "--trials", "2"], "--trials=2 is too small; accepted: 4 or more"),
        (["arm=memory", "seed=3"], "seed=3: every search sets that itself; accepted: without it"),
        (["arm=memory", "--commit"], "arm=memory has no effect; accepted: --commit alone, for all searches"),
        (["arm=memory", "--workers", "0"], "--workers=0 is too small; accepted: 1 or more"),
    ],
)
def test_a_mistake_in_a_search_is_one_line(words, said):
    done = called("tune.py", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"memlayers: {said}") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_compare_keeps_a_model_that_ask_answers_from(tmp_path):
    words = ["arm=dense,memory", "seed=0", "world.num_subjects=60", "training.exposures=2", "num_keys=16"]
    done = called("compare.py", *words, f"results={tmp_path}", "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    (line,) = (one for one in done.stdout.splitlines() if "scripts/ask.py" in one)
    (kept,) = tmp_path.rglob("memory-s0-*.safetensors")
    assert line.endswith(f"python scripts/ask.py {kept}") and len(list(tmp_path.rglob("*.safetensors"))) == 2
    name = next(iter(load(kept).subjects))
    assert f"{name}, country" in called("ask.py", str(kept), name, "country").stdout


def test_compare_finds_equal_digits_though_later_records_hold_more(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "scripts"))
    from compare import same_digits

    old = record("memory", 0, 0.5)
    new = record("memory", 0, 0.5)
    old["recall"]["unknown"], new["recall"]["unknown"] = {"auroc": 0.9}, {"auroc": 0.9, "auroc_by_tokens": 0.6}
    assert same_digits([new], [old]).startswith("1 of 1 runs")
    new["recall"]["unknown"]["auroc"] = 0.91
    assert same_digits([new], [old]).startswith("0 of 1 runs")
