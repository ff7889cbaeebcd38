"""Data flows one way: a module imports only from those above it, and the science knows no framework."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "memlayers"

# The science: each part with the parts that it may import. A part may always import from itself.
SCIENCE = {
    "checks": set(),
    "processes": set(),
    "running_text": set(),
    "layers": {"checks", "processes"},
    "kernels": {"layers"},
    "config": {"checks", "layers", "running_text"},
    "facts": {"checks", "config", "running_text"},
    "documents": {"facts"},
    "phrasing": {"config", "facts"},
    "frequency": {"facts"},
    "associative": {"documents", "facts"},
    "context": {"config", "documents", "facts"},
    "text": {"associative", "checks", "config", "context", "documents", "facts", "frequency", "phrasing"},
    "model": {"config", "kernels", "layers"},
    "cost": {"config", "layers", "model"},
    "shares": {"config", "layers", "model"},
    "quantize": {"config", "model"},
    "optim": {"checks", "config", "kernels", "layers", "model"},
    "recall": {"documents", "facts", "layers", "model", "text"},
}
# The rest, in order: each may import from the science and from those before it.
WIRING = ["training", "foreign", "trained", "exported", "tracing", "studies", "__main__"]
FRAMEWORKS = {"hydra", "omegaconf", "lightning", "pytorch_lightning"}


def part_of(path: Path) -> str:
    """The file or folder right under memlayers/ that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """Full names of everything that is imported anywhere in a source, also within functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def ours(source: str) -> set[str]:
    """The parts of memlayers that a source imports."""
    names = [name.split(".") for name in imported(source)]
    return {name[1] for name in names if name[0] == "memlayers" and not name[1].startswith("__")}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
OF_SCIENCE = [path for path in FILES if part_of(path) in SCIENCE]


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_module_has_a_place_and_every_place_a_module():
    assert {part_of(path) for path in FILES} == {*SCIENCE, *WIRING}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_module_imports_only_from_those_above_it(path):
    part = part_of(path)
    above = SCIENCE[part] if part in SCIENCE else {*SCIENCE, *WIRING[: WIRING.index(part)]}
    assert ours(path.read_text()) <= above | {part}


def test_the_package_itself_is_a_door_to_studies_and_models_and_imports_nothing_before_it_is_used():
    source = (PACKAGE / "__init__.py").read_text()
    assert ours(source) == {"foreign", "studies", "trained", "training"}
    at_the_top = "\n".join(ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.ImportFrom))
    assert set(imported(at_the_top)) == {"__future__.annotations", "typing.TYPE_CHECKING", "typing.Any"}


@pytest.mark.parametrize("path", OF_SCIENCE, ids=named)
def test_the_science_imports_neither_lightning_nor_hydra(path):
    assert not {name.split(".")[0] for name in imported(path.read_text())} & FRAMEWORKS


@pytest.mark.parametrize("path", [path for path in OF_SCIENCE if part_of(path) in ("checks", "config")], ids=named)
def test_settings_need_no_torch_of_their_own(path):
    """Only what comes with the layers, whose settings stand beside their modules."""
    assert "torch" not in {name.split(".")[0] for name in imported(path.read_text())}


def test_parts_of_the_science_form_no_circle():
    done: set[str] = set()
    while ready := {part for part, above in SCIENCE.items() if above <= done} - done:
        done |= ready
    assert done == set(SCIENCE)


def loads(module: str) -> set[str]:
    """Top-level packages in memory after a fresh Python has imported a module."""
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "pandas", "matplotlib", "rich", *FRAMEWORKS}
PARTS_OF_SCIENCE = ", ".join(f"memlayers.{part}" for part in SCIENCE)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("memlayers", {"transformers", *HEAVY}),
        ("memlayers.checks", HEAVY),
        ("memlayers.training.progress_notes", HEAVY),
        ("memlayers.kernels", {"triton", *FRAMEWORKS}),  # an extra
        (f"{PARTS_OF_SCIENCE}, memlayers.recall.measure, memlayers.recall.plateau", {"pandas", *FRAMEWORKS}),
        # A study that is done is found done, and a mistake is told, without what trains and draws.
        ("memlayers.studies.cli", {"lightning", "pandas", "matplotlib", "triton"}),
        ("memlayers.training.plan", FRAMEWORKS),  # what an arm costs
        ("memlayers.foreign.load, memlayers.foreign.groups", {"transformers", *FRAMEWORKS}),
        ("memlayers.studies.table", {"lightning", "hydra", "matplotlib"}),
    ],
)
def test_what_a_fresh_python_loads(module, forbidden):
    loaded = loads(module)
    assert "memlayers" in loaded and not loaded & forbidden


def test_drawing_leaves_a_notebook_the_backend_that_shows_its_own_figures(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "svg")
    modules = "memlayers.studies.figure, memlayers.studies.ways, memlayers.studies.trace_figure"
    code = (
        f"import matplotlib, sys, {modules}; print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['backend'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == ["False", "svg"]


def test_the_reader_of_imports_sees_all_kinds():
    source = "import memlayers.training.learner as a, os\nfrom memlayers import cost\n"
    source += "def f():\n    from memlayers.studies.cli import verb\n"
    assert ours(source) == {"training", "cost", "studies"}
    assert set(imported(source)) == {"memlayers.training.learner", "os", "memlayers.cost", "memlayers.studies.cli.verb"}
    assert ours("from memlayers import __version__") == set()
