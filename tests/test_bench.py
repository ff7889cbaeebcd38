"""The benchmark runs; what it says about speed is not tested."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memlayers import speed
from memlayers.studies.report import replace_section

ROOT = Path(__file__).resolve().parent.parent
BENCH = [sys.executable, str(ROOT / "scripts" / "bench.py")]


def test_quick_runs_every_part_and_saves_nothing() -> None:
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "results" / "bench").iterdir()}
    done = subprocess.run([*BENCH, "--quick"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    parts = re.findall(r"^(\w+)(?: \.\.\.|: left out)", done.stdout, re.MULTILINE)
    assert sorted(parts) == ["flat", "level", "limit", "parts", "peers", "trace"]
    assert re.search(r"width 64: read [\d.]+ MB, [\d.]+ GB/s, [\d.]+ of the limit\n", done.stdout)
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "results" / "bench").iterdir()} == before


def test_an_unknown_part_is_one_line() -> None:
    done = subprocess.run([*BENCH, "levle"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "'levle'" in done.stderr


def test_the_readme_shows_what_was_measured() -> None:
    measured = speed.load(ROOT / "results" / "bench")
    readme = (ROOT / "README.md").read_text()
    assert replace_section(readme, "speed", speed.section(measured)) == readme
    targets = measured["summary"]["targets"]
    assert all(one.keys() == {"name", "value", "limit", "holds"} for one in targets) and len(targets) >= 10
    json.dumps(targets, allow_nan=False)
    for part in ("flat", "level", "peers", "limit"):
        assert {"processor", "torch", "threads"} <= measured[part]["machine"].keys()


@pytest.mark.slow
def test_a_step_allocates_nothing_of_the_size_of_the_table() -> None:
    """Peak memory of a process that trains on 2**20 slots stays within a tenth of the values of what it holds."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from benches.flat import made, resident
step = made(20)
for _ in range(2):
    step()
before = resident(reset_peak=True)
for _ in range(5):
    step()
print(resident("VmHWM") - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "scripts")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2**20 * 64 * 4 / 10
