"""Workers of a launcher: they end with their study, whatever ends it, and what they have trained is kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memlayers.studies import workers

TRAIN = Path(__file__).parent.parent / "scripts" / "train.py"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_study_and_their_runs_are_saved(number, tmp_path):
    """Only the study's own process gets the signal."""
    words = [
        "-m",
        "arm=dense",
        "seed=0,1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "world.num_subjects=300",
    ]
    words += ["training.steps=100000", "logger=none", f"results={tmp_path}"]
    study = subprocess.Popen([sys.executable, TRAIN, *words], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait(lambda: len([*tmp_path.rglob("*.running")]) == 2)
        time.sleep(2)
        study.send_signal(number)
        assert study.wait(timeout=60) == -number
        wait(lambda: not group(study.pid))
    finally:
        if group(study.pid):
            os.killpg(study.pid, signal.SIGKILL)
    assert len([*tmp_path.rglob("*.ckpt")]) == 2


def wait(until, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.2)


def group(leader: int) -> bool:
    """Whether a process of its group is there."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_only_a_child_of_the_process_that_waits_is_a_worker(monkeypatch):
    started = []
    monkeypatch.setattr(workers.threading.Thread, "start", lambda self: started.append(self.name))
    for value in (None, "1", str(os.getpid())):
        monkeypatch.delenv(workers.STUDY, raising=False)
        if value is not None:
            monkeypatch.setenv(workers.STUDY, value)
        workers.end_with_study()
    assert not started
    monkeypatch.setenv(workers.STUDY, str(os.getppid()))
    workers.end_with_study()
    assert started == [f"{workers.STUDY}={os.getppid()}"]
