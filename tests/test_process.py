"""Two processes at one run: one trains, the other waits for its record."""

import json
import threading
import time

import pytest
import torch
from commands import small
from filelock import FileLock

from memlayers.training.process import locked, threads
from memlayers.training.record import record_path, with_checksum, write_json
from memlayers.training.run import run


def test_a_second_process_says_that_it_waits_and_takes_the_record(tmp_path, capsys):
    config = small(tmp_path)
    path = record_path(config)
    path.parent.mkdir(parents=True)
    lock, found = FileLock(path.with_suffix(".lock")), []
    lock.acquire()
    waiting = threading.Thread(target=lambda: found.append(run(config)))
    waiting.start()
    while "waiting" not in (said := capsys.readouterr().err):
        time.sleep(0.01)
    assert said == f"memlayers: {path}: another process is at this run; waiting for it\n"
    ours = with_checksum({"schema": 2, "status": "ok", "arm": "memory"})
    write_json(path, ours)
    lock.release()
    waiting.join(timeout=60)
    assert found == [ours] and json.loads(path.read_text()) == ours


def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path):
    """As after SIGKILL: the file is there, and no process has it."""
    config = small(tmp_path)
    lock = record_path(config).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert run(config)["status"] == "ok" and not lock.exists()


def test_a_lock_goes_with_what_it_was_for_however_that_ends(tmp_path):
    path = tmp_path / "folder" / "memory-s0-0.json"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), locked(path):
            assert path.with_suffix(".lock").exists()
            raise error
        assert not list(path.parent.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="cannot be written") as caught,
        locked(tmp_path / "file" / "a" / "b.json"),
    ):
        raise AssertionError
    assert "\n" not in str(caught.value)


def test_threads_are_those_of_before_afterwards():
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
