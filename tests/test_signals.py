"""A run that is asked to stop: it is saved, and the signal goes on to whoever handled it before."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import digits, small
from test_resume import stop_at

from memlayers.training import checkpoint
from memlayers.training.checkpoint import Interrupted, step_kept
from memlayers.training.record import Record, read_record, record_path
from memlayers.training.run import run


@pytest.mark.parametrize("number", checkpoint.SIGNALS)
def test_signals_mean_what_they_meant_after_a_run(number, tmp_path, monkeypatch):
    before = [signal.getsignal(one) for one in checkpoint.SIGNALS]
    stop_at(monkeypatch, 5, number)
    with pytest.raises(Interrupted) as stopped:
        run(small(tmp_path))
    assert stopped.value.number == number
    assert [signal.getsignal(one) for one in checkpoint.SIGNALS] == before


@pytest.fixture
def handled():
    """A handler of SIGUSR2 as submitit installs one, and the steps at which it was called."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: seen.append(number))
    yield seen
    signal.signal(signal.SIGUSR2, before)


def test_a_handler_that_exits_ends_a_run_that_is_saved(tmp_path, monkeypatch, handled):
    """As a job does that puts itself back into the queue: with its own exit code, and no record."""
    whole, config = run(small(tmp_path / "whole")), small(tmp_path / "half")
    steps = []

    def requeue(number, frame):
        steps.append(step_kept(config))
        sys.exit(7)

    signal.signal(signal.SIGUSR2, requeue)
    with monkeypatch.context() as patch:
        stop_at(patch, 9, signal.SIGUSR2)
        with pytest.raises(SystemExit) as left:
            run(config)
    assert left.value.code == 7 and steps == [9], "it is called once the checkpoint is there"
    assert read_record(record_path(config)) is None
    assert digits(run(config)) == digits(whole)


def test_a_handler_that_returns_lets_the_run_go_on(tmp_path, monkeypatch, handled):
    """As submitit does for SIGTERM, which Slurm sends beside the signal that counts."""
    whole = run(small(tmp_path / "whole"))
    stop_at(monkeypatch, 9, signal.SIGUSR2)
    assert digits(run(small(tmp_path / "other"))) == digits(whole)
    assert handled == [signal.SIGUSR2]


def start(folder: Path) -> subprocess.Popen[str]:
    train = Path(__file__).resolve().parent.parent / "scripts" / "train.py"
    words = ["arm=memory", "world=atlas_airports", "training.exposures=4", "progress=none", "checkpoint_minutes=0.01"]
    command = [sys.executable, str(train), *words, f"results={folder}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder.parent)


def ended(folder: Path) -> Record:
    """The record of the command, started in a folder and left alone."""
    running = start(folder)
    running.communicate(timeout=300)
    assert running.returncode == 0
    record = read_record(next(folder.rglob("*-s0-*.json")))
    assert record is not None
    return record


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Record:
    return ended(tmp_path_factory.mktemp("signals") / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_a_command_that_is_stopped_goes_on_where_it_was(number, whole, tmp_path):
    """From outside: exit code, one line, and the digits of a run that was left alone."""
    running = start(tmp_path / "half")
    while not list((tmp_path / "half").rglob("*.ckpt")):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    _, said = running.communicate(timeout=120)
    assert running.returncode == (-9 if number == signal.SIGKILL else 128 + number), said
    if number != signal.SIGKILL:
        assert "memlayers: interrupted; the same command goes on from step " in said and "Traceback" not in said
    assert len(list((tmp_path / "half").rglob("*.ckpt"))) == 1 and not list((tmp_path / "half").rglob("*-s0-*.json"))
    assert digits(ended(tmp_path / "half")) == digits(whole)
