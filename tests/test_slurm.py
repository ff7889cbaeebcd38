"""A study on a real Slurm of one node: a run that is preempted goes back into the queue and ends with the same digits.

Skipped where Slurm is not installed: tests/slurm_here.sh starts it, on Debian, as root.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import digits, one

from memlayers.training.record import read_record, record_path
from memlayers.training.run import run

HERE = Path(__file__).parent
WORDS = ["world=atlas_airports", "world.num_subjects=400", "training.steps=500", "training.probes=4", "logger=none"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("slurmctld") is None or os.geteuid() != 0, reason="needs Slurm, and to be root"),
]


@pytest.fixture
def slurm(tmp_path):
    """The environment of a command that finds it."""
    subprocess.run([HERE / "slurm_here.sh", "start", tmp_path / "slurm"], check=True)
    try:
        yield os.environ | {"SLURM_CONF": str(tmp_path / "slurm" / "slurm.conf")}
    finally:
        subprocess.run([HERE / "slurm_here.sh", "stop", tmp_path / "slurm"], check=True)


def until(found, seconds: float = 240.0):
    """What `found` returns, once it is something."""
    ends = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.2)
    return value


def test_a_preempted_run_is_requeued_and_all_records_are_those_of_this_process(slurm, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder, sweep = tmp_path / "results", tmp_path / "sweep"
    command = [sys.executable, "scripts/train.py", "-m", *WORDS, "arm=dense,memory", "seed=0,1", f"results={folder}"]
    command += ["hydra/launcher=slurm", "hydra.launcher.mem_gb=null", f"hydra.sweep.dir={sweep}"]
    study = subprocess.Popen(command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def under_way() -> list[Path]:
        """Notes of runs of memory that have taken steps."""
        notes = folder.rglob("memory-*.running")
        return [note for note in notes if re.search(r'"step": [1-9]', note.read_text())]

    until(under_way)
    queue = subprocess.run(["squeue", "-h", "-r", "-t", "R", "-o", "%i"], env=slurm, capture_output=True, text=True)
    job = max(queue.stdout.split())  # of several that run, one of memory
    subprocess.run(["scancel", f"--signal={signal.SIGUSR2.name[3:]}", job], env=slurm, check=True)
    said, _ = study.communicate(timeout=400)
    assert study.returncode == 0, said
    logs = "".join(path.read_text() for path in sweep.rglob("*_log.*"))
    assert "this job is preempted" in logs and "Requeued job" in logs, logs
    for arm in ("dense", "memory"):
        for seed in (0, 1):
            config = one(*WORDS, f"arm={arm}", f"seed={seed}", "progress=none", f"results={tmp_path / 'here'}")
            record = read_record(folder / record_path(config).relative_to(tmp_path / "here"))
            ours, theirs = digits(run(config)), digits(record)
            ours["axes"] = theirs["axes"]
            assert ours == theirs
