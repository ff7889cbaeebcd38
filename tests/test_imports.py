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
    "config": set(),
    "facts": {"config"},
    "text": {"facts"},
    "layers": set(),
    "kernels": {"layers"},
    "model": {"config", "kernels", "layers"},
    "cost": {"config", "layers", "model"},
    "lazy": {"kernels", "layers"},
    "optim": {"config", "kernels", "layers", "lazy", "model"},
    "recall": {"facts", "model", "text"},
    "plateau": set(),
    "measure": {"model", "recall", "text"},
}
# The rest, in order: each may import from the science and from those before it.
WIRING = ["record", "progress_notes", "progress", "checkpoint", "lit", "trainer", "run"]
WIRING += ["table", "figure", "speed", "report", "studies", "tried", "display", "compose", "cli"]
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


def test_every_module_has_a_place_and_every_place_a_module():
    assert {part_of(path) for path in FILES} == {*SCIENCE, *WIRING}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_those_above_it(path):
    part = part_of(path)
    above = SCIENCE[part] if part in SCIENCE else {*SCIENCE, *WIRING[: WIRING.index(part)]}
    assert ours(path.read_text()) <= above | {part}


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) in SCIENCE], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_science_imports_neither_lightning_nor_hydra_and_settings_not_even_torch(path):
    forbidden = FRAMEWORKS | ({"torch"} if part_of(path) == "config" else set())
    assert not {name.split(".")[0] for name in imported(path.read_text())} & forbidden


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


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("memlayers.config", {"torch", *FRAMEWORKS}),
        ("memlayers.studies.cli", {"torch", "lightning"}),  # a study that is done is found done without them
        ("memlayers.studies.report", {"torch", *FRAMEWORKS}),
        ("memlayers.kernels", {"triton", *FRAMEWORKS}),  # an extra
        ("memlayers.cost, memlayers.optim.groups, memlayers.recall.measure, memlayers.facts", FRAMEWORKS),
    ],
)
def test_what_a_fresh_python_loads(module, forbidden):
    loaded = loads(module)
    assert "memlayers" in loaded and not loaded & forbidden


def test_the_reader_of_imports_sees_all_kinds():
    source = "import memlayers.training.learner as a, os\nfrom memlayers import run\ndef f():\n    from memlayers.studies.cli import main\n"
    assert ours(source) == {"lit", "run", "cli"}
    assert set(imported(source)) == {"memlayers.training.learner", "os", "memlayers.training.run", "memlayers.studies.cli.main"}
    assert ours("from memlayers import __version__") == set()
