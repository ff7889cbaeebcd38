"""The tutorials run, as scripts and as notebooks; what they claim in words, they assert."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]_*.py"))


def named(path: Path) -> str:
    return path.stem


def surroundings(folder: Path) -> dict[str, str]:
    """Of a process that works with this checkout, and whose temporary files are in a folder."""
    return os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}


def files_of_the_checkout() -> set[Path]:
    found = {path for part in ("tutorials", "results") for path in (ROOT / part).rglob("*")}
    return {path for path in found if "__pycache__" not in path.parts}


def test_the_list_has_each_with_a_title_and_links_lead_somewhere():
    text = (ROOT / "tutorials" / "README.md").read_text()
    assert re.findall(r"^\| \[(\S+)\]\(\1\)", text, re.MULTILINE) == [path.name for path in TUTORIALS]
    for path in TUTORIALS:
        source = path.read_text()
        assert source.startswith(f"# %% [markdown]\n# # {path.name[0]}. "), path.name
        assert source.count("\nassert ") + source.count("\n    assert ") >= 3, (
            f"{path.name}: claims that nothing checks"
        )
        assert all((path.parent / link).exists() for link in re.findall(r"\]\(((?!http)[^)]+)\)", source)), path.name


@pytest.mark.parametrize("path", TUTORIALS, ids=named)
def test_it_is_a_notebook_of_prose_and_code_and_comes_back_as_it_was(path):
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(path)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown" and kinds.count("markdown") >= 6 and kinds.count("code") >= 6
    cells = jupytext.writes(notebook, fmt="py:percent").partition("# %% [markdown]")
    assert cells[1] + cells[2] == path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=named)
def test_it_runs_as_a_script_and_leaves_nothing_behind(path, tmp_path):
    pytest.importorskip("IPython")
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    before = files_of_the_checkout()
    environment = surroundings(scratch) | {"MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, path], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Warning" not in done.stderr, done.stderr
    assert not list(here.iterdir()) and not files_of_the_checkout() - before


@pytest.mark.slow
@pytest.mark.parametrize(("name", "figures"), [("1_memory_layer", 3), ("2_train_ask_trace_edit", 4)])
def test_it_runs_as_a_notebook_that_shows_its_figures(name, figures, tmp_path, monkeypatch):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = jupytext.read(ROOT / "tutorials" / f"{name}.py")
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(tmp_path), env=surroundings(tmp_path))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == figures
    told = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in told if "IProgress" not in text]  # of transformers, where that is installed
