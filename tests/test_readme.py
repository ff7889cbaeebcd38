"""The README tells the truth: its numbers are the records', its commands run, its files exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memlayers.studies.report import readme_section, replace_section
from memlayers.studies.table import dumps, load, rows, summary

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The lines of the README that start python, without comments."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("python ")]


def test_table_figure_and_summary_are_those_of_the_records() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    from report import ORDER, STUDY

    found = load(ROOT / "results")[STUDY]
    worlds = {world: rows(found[world]) for world in sorted(found, key=lambda name: (*ORDER, name).index(name))}
    assert replace_section(README, STUDY, readme_section(worlds)) == README
    assert (ROOT / "results" / "summary.json").read_text() == dumps(summary(ROOT / "results"))
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file() and (ROOT / path).with_suffix(".svg").is_file()


def test_committed_records_are_whole() -> None:
    for path in (ROOT / "results").glob("*/*/*.json"):
        if "local" in path.parts:
            continue
        record = json.loads(path.read_text())
        assert record["status"] == "ok", path
        assert path.name == f"{record['arm']}-s{record['seed']}-{record['digest']}.json"


def test_files_named_in_the_tree_exist() -> None:
    named = re.findall(r"^    ((?:memlayers|conf|scripts|tests|results)/\S*)", README, re.MULTILINE)
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]


def test_python_block_runs() -> None:
    for block in blocks("python"):
        scope: dict[str, object] = {}
        exec(block, scope)
        assert scope["hidden"].shape == (2, 16, 256)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_command_runs(command: str, tmp_path: Path) -> None:
    """As written, but for one step, few subjects and a folder of its own."""
    if "report.py" in command:
        pytest.skip("writes the README; its parts are tested above")
    (tmp_path / "facts.csv").write_text("subject,relation,object\na b,r,x\nc d,r,y\na d,r,x\n")
    words = command.replace("'", "").split()[1:]
    extra = []
    if "show_cost" not in command and "--cfg" not in command:
        extra = [f"results={tmp_path}", "training.steps=1", "training.probes=1", "training.batch_tokens=64"]
        if "experiment=memory_vs_dense" in words and "arm=memory" not in words:
            words += ["seed=0", "arm=dense,memory"]
    words[0] = str(ROOT / words[0])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words, *extra], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_compare_says_how_its_digits_agree_and_what_they_depend_on():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from compare import same_digits
    finally:
        sys.path.pop(0)
    one = {"digest": "a", "seed": 0, "recall": {"exact": 0.5}, "machine": {"processor": "X", "threads": 1}}
    other = one | {"recall": {"exact": 0.625}, "machine": {"processor": "Y", "threads": 1}}
    assert same_digits([one], [one]).startswith("1 of 1 runs") and "depend" not in same_digits([one], [one])
    said = same_digits([one], [other])
    assert "0 of 1" in said and "0.125 away" in said and said.endswith("the machine: processor X here, Y there.")
    assert same_digits([one], [one | {"seed": 1}]).startswith("None")
