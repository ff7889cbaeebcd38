"""The README tells the truth: its table is the records', its commands run, its files exist, its example is an arm."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

import memlayers
from memlayers.layers.pool import MemoryPool

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
FAST = ["training.steps=1", "training.probes=1", "training.batch_tokens=64"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def block_with(words: str) -> str:
    (found,) = (block for block in blocks("python") if words in block)
    return found


def commands() -> list[str]:
    """The lines of the README that start python, without comments."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("python ")]


def run(words: list[str], folder: Path) -> str:
    """A script of this checkout, run in a folder; its output."""
    done = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_it_is_short_and_what_it_names_exists():
    assert len(README.splitlines()) <= 150
    assert all((ROOT / path).exists() for path in re.findall(r"\]\(((?!http)[^)]+)\)", README))
    named = re.findall(r"`((?:conf|memlayers|tests|results|scripts)/[\w/.]*)`", README)
    assert len(named) >= 5 and not [name for name in named if not (ROOT / name).exists()]


def test_readme_and_docstring_give_one_reading_order_of_all_layer_files():
    (listed,) = re.findall(r"^`memlayers/layers/`, in this order: ([^;]*);", README, re.MULTILINE)
    in_readme = re.findall(r"`(\w+)\.py`", listed)
    in_docstring = re.findall(r"^ {4}(\w+)  ", memlayers.layers.__doc__ or "", re.MULTILINE)
    files = [path.stem for path in (ROOT / "memlayers/layers").glob("*.py") if path.stem != "__init__"]
    assert in_readme == in_docstring and sorted(in_readme) == sorted(files)


@pytest.mark.slow
def test_the_block_for_models_of_others_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(block_with("memlayers.swap"), scope)
    tables = [one for one in scope["model"].modules() if isinstance(one, MemoryPool)]
    assert len(tables) == 1 and len(scope["rows"].param_groups[0]["params"]) == 1
    assert scope["model"](input_ids=torch.arange(8)[None]).logits.shape == (1, 8, 500)


def test_the_block_from_python_runs(tmp_path):
    results = tmp_path / "results" / "local"
    code = block_with("memlayers.run").replace('"training.steps=20"', f'"training.steps=2", "results={results}"')
    scope: dict[str, object] = {}
    exec(code.replace('"results/local"', repr(str(results))), scope)
    record, table = scope["record"], scope["table"]
    assert record["status"] == "ok" and isinstance(table, pandas.DataFrame)  # type: ignore[index]
    assert table["recall"].tolist() == [record["recall"]["exact"]]  # type: ignore[index]


@pytest.mark.slow
def test_the_example_of_an_arm_of_ones_own_goes_from_composing_to_the_table(tmp_path):
    """Two files in a folder outside the checkout: matched, recorded, in table and figure, also by parallel workers."""
    mine = tmp_path / "mine"
    mine.mkdir()
    example = block_with("class Bilinear")
    assert len(example.splitlines()) <= 25
    (mine / "bilinear.py").write_text(example)
    (mine / "bilinear.yaml").write_text(re.findall(r"With `(width: \d+)` in the YAML", README)[0])
    (command,) = re.findall(r"`python (scripts/train.py [^`]*bilinear.py[^`]*)`", README)
    words = command.replace("'", "").replace("range(3)", "range(2)").split()
    small = ["world=biographies", "world.num_people=300", "training.steps=5", "hydra/launcher=joblib"]
    run([*words, *small, f"results={tmp_path / 'results'}"], tmp_path)
    frame = memlayers.records(tmp_path / "results")
    flops = frame.groupby("arm")["flops_per_token"].unique()
    assert sorted(flops.index) == ["bilinear", "dense", "memory"] and (frame["status"] == "ok").all()
    assert frame["n" if "n" in frame else "seed"].nunique() == 2
    for arm in ("bilinear", "dense"):
        assert flops[arm] == pytest.approx(flops["memory"], rel=2e-3)
    assert not frame.loc[frame["arm"] == "bilinear", "config.model.ffn.source"].isna().any()
    shown = run(["scripts/report.py", str(tmp_path / "results"), "--out", str(tmp_path / "out")], tmp_path)
    assert "bilinear" in shown
    written = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written >= {".md", ".csv", ".parquet", ".png", ".svg"}
    assert any("bilinear" in path.read_text() for path in (tmp_path / "out").rglob("*.md"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> str:
    """A run whose model is there to be asked."""
    folder = tmp_path_factory.mktemp("kept")
    words = ["scripts/train.py", "world=atlas_airports", "save_model=true", f"results={folder}", *FAST]
    run(words, folder)
    (record,) = folder.rglob("*-s0-*.json")
    return str(record)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_command_runs(command, tmp_path, kept):
    """As written, but for one step, few subjects, texts, seeds and trials, and a folder of its own."""
    (tmp_path / "facts.csv").write_text("subject,relation,object\na b,r,x\nc d,r,y\na d,r,x\n")
    words = command.replace("'", "").replace("RUN", kept).split()[1:]
    if "report.py" in command:
        pytest.skip("writes the README and results/; tests of results.py hold what it does")
    if "tune.py" in command:  # whose runs take the length of their budget
        small = ["world=atlas_airports", "world.num_subjects=40", "num_keys=8"]
        words += ["--trials", "4", "--out", str(tmp_path), *small]
    elif not any(name in command for name in ("show_cost", "ask.py", "trace.py")):
        words += [f"results={tmp_path}", *FAST]
    if "world.corpus" in command:
        words += ["world.corpus.sources=[code]", "world.num_people=200"]
    if "experiment=" in command and "seed" not in command and "show_cost" not in command:
        words += ["seed=0"]
    run(words, tmp_path)
