"""The pages about what is called from Python are made without a warning, and all that is public is in them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pdoc", reason='pdoc is not installed: pip install -e ".[api]"')
ROOT = Path(__file__).resolve().parent.parent
PUBLIC = {"run", "records", "load", "swap", "load_swapped", "param_groups"}


@pytest.mark.slow
def test_pages_hold_every_public_name_and_warn_of_nothing(tmp_path):
    (line,) = (line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if "-m pdoc" in line)
    command = [sys.executable, "-W", "error", *shlex.split(line, comments=True)[1:-1], str(tmp_path / "api")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == ""
    pages = {str(path.relative_to(tmp_path / "api")) for path in (tmp_path / "api").rglob("*.html")}
    parts = {f"memlayers/{part}.html" for part in ("exported", "layers", "optim", "trained", "tracing")}
    assert pages == {"index.html", "memlayers.html", *parts}
    front = (tmp_path / "api/memlayers.html").read_text()
    assert set(re.findall(r'<section id="(\w+)">', front)) == PUBLIC
    assert "Trained.ask" in (tmp_path / "api/memlayers/trained.html").read_text()
    assert 'id="Memory"' in (tmp_path / "api/memlayers/layers.html").read_text()
