"""The benchmark runs; what it says about speed is not tested."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = [sys.executable, str(ROOT / "scripts" / "bench.py")]
sys.path.insert(0, str(ROOT / "scripts"))

import bench  # noqa: E402
from benches import gpu, report  # noqa: E402


def test_without_a_gpu_that_part_is_left_out_in_a_line():
    done = subprocess.run([*BENCH, "gpu"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "gpu: left out; torch finds no GPU here\n")


def test_kernels_for_a_gpu_are_exact_by_the_interpreter():
    """The check that the part on GPUs begins with."""
    pytest.importorskip("triton")
    errors = gpu.exact("cpu", 4, (8,), reads=3, slots=16)
    assert {"choice", "look-up", "read", "rows", "step", "step in backward", "weights"} == set(errors)
    assert max(errors.values()) < 1e-5


@pytest.mark.slow
def test_quick_runs_every_part_and_saves_nothing():
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "results" / "bench").iterdir()}
    done = subprocess.run([*BENCH, "--quick"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    parts = re.findall(r"^(\w+)(?: \.\.\.|: left out)", done.stdout, re.MULTILINE)
    assert sorted(parts) == ["flat", "gpu", "level", "limit", "parts", "peers", "shards", "trace"]
    assert re.search(r"width 64: read [\d.]+ MB, [\d.]+ GB/s, [\d.]+ of the limit\n", done.stdout)
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "results" / "bench").iterdir()} == before


def test_an_unknown_part_is_one_line():
    done = subprocess.run([*BENCH, "levle"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "'levle'" in done.stderr


@pytest.mark.parametrize(("codes", "expected"), [([0, -9], 137), ([-15, 1], 143), ([0, 2], 2), ([0, 0], 0)])
def test_a_part_that_a_signal_killed_is_no_success(monkeypatch, capsys, codes, expected):
    left = iter(codes)
    monkeypatch.setattr(bench.subprocess, "call", lambda *_: next(left))
    monkeypatch.setattr(sys, "argv", ["bench.py", "flat", "level"])
    assert bench.main() == expected
    killed = [f"{part} by signal {-code}" for part, code in zip(("flat", "level"), codes, strict=True) if code < 0]
    assert capsys.readouterr().err == (f"memlayers: killed: {', '.join(killed)}\n" if killed else "")


def test_the_section_on_speed_is_of_what_was_saved():
    found = report.load(ROOT / "results" / "bench")
    text = report.section(found)
    for one in found["peers"]["measured"]:
        assert f"| {one['width']} | 2^{one['log2_slots']} | {one['topk']} | " in text
    holds = [target["holds"] for target in found["summary"]["targets"]]
    assert f"{sum(holds)} of {len(holds)} targets hold" in text


def test_the_figure_of_speed_is_the_same_twice(tmp_path):
    found = report.load(ROOT / "results" / "bench")
    first, second = (report.draw(found, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.slow
def test_a_step_allocates_nothing_of_the_size_of_the_table():
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
    arguments = [sys.executable, "-c", code, str(ROOT / "scripts")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2**20 * 64 * 4 / 10
