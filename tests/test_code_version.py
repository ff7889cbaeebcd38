"""The code and the machine of a record: commit, what differs from it, processor."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from memlayers import __version__
from memlayers.training import provenance
from memlayers.training.provenance import code_version, machine

NOTHING = {"version": __version__, "commit": None, "dirty": None, "diff": None}


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@example"]
    return subprocess.run(["git", "-C", folder, *author, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A repository with a file in each folder, in which the package seems to lie."""
    for name in ("memlayers/training/record.py", "conf/train.yaml", "scripts/train.py", "README.md", "results/x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "memlayers" / "training" / "provenance.py"))
    return tmp_path


def test_clean_code_is_its_commit(checkout):
    commit = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    assert code_version() == {"version": __version__, "commit": commit, "dirty": False, "diff": None}
    for name in ("README.md", "results/y.json"):
        (checkout / name).write_text("changed\n")
    assert not code_version()["dirty"], "what is no code changes no number"


@pytest.mark.parametrize("name", ["memlayers/training/record.py", "conf/train.yaml", "scripts/new.py", "conf/ä b.yaml"])
@pytest.mark.parametrize("staged", [False, True])
def test_changed_code_is_told_apart_by_what_is_changed(checkout, name, staged):
    found = []
    for content in ("second\n", "third\n", "second\n"):
        (checkout / name).write_text(content)
        if staged:
            git(checkout, "add", ".")
        version = code_version()
        assert version["dirty"] and version["commit"] == git(checkout, "rev-parse", "--short=12", "HEAD").strip()
        found.append(version["diff"])
    assert found[0] == found[2] != found[1] and all(len(diff) == 12 and int(diff, 16) >= 0 for diff in found)


def test_new_code_of_another_name_is_other_code(checkout):
    found = set()
    for name in ("one", "two"):
        (checkout / "scripts" / f"{name}.py").write_text("pass\n")
        found.add(code_version()["diff"])
        (checkout / "scripts" / f"{name}.py").unlink()
    assert len(found) == 2 and not code_version()["dirty"]


def test_outside_a_checkout_or_without_git_the_commit_is_null(checkout, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    assert code_version() == NOTHING
    monkeypatch.undo()
    for folder in (
        tmp_path_factory.mktemp("plain"),
        checkout / "venv",
    ):  # installed within a checkout of something else
        monkeypatch.setattr(provenance, "__file__", str(folder / "memlayers" / "training" / "provenance.py"))
        assert code_version() == NOTHING


def test_the_machine_is_described():
    found = machine(3)
    assert found["threads"] == 3 and found["cores"] == os.cpu_count() and found["torch"].startswith("2.")
    assert found["processor"] and found["instructions"]
    json.dumps(found, allow_nan=False)
