"""The pages about what is called from Python are made without a warning, and all that is public is in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import called

pytest.importorskip("pdoc", reason='pdoc is not installed: pip install -e ".[api]"')
ROOT = Path(__file__).resolve().parent.parent
PUBLIC = {"run", "records", "load", "swap", "load_swapped", "param_groups"}


@pytest.mark.slow
def test_pages_hold_every_public_name_and_warn_of_nothing(tmp_path):
    command = [sys.executable, "-W", "error", str(ROOT / "scripts/api.py"), str(tmp_path / "api")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "" and done.stdout == f"{tmp_path / 'api/index.html'}\n"
    pages = {str(path.relative_to(tmp_path / "api")) for path in (tmp_path / "api").rglob("*.html")}
    parts = {f"memlayers/{part}.html" for part in ("exported", "layers", "optim", "trained", "tracing")}
    assert pages == {"index.html", "memlayers.html", *parts}
    front = (tmp_path / "api/memlayers.html").read_text()
    assert set(re.findall(r'<section id="(\w+)">', front)) == PUBLIC
    assert "Trained.ask" in (tmp_path / "api/memlayers/trained.html").read_text()
    assert 'id="Memory"' in (tmp_path / "api/memlayers/layers.html").read_text()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = called("api.py", str(tmp_path / "file"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "accepted: a writable folder" in done.stderr
