"""Contexts of a run: a lock of its record, and the number of threads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from memlayers.training.record import check_writable


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context that holds the lock of a record; waits for another process that has it. It ends with its process."""
    check_writable(path.parent)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"memlayers: {path}: another process is at this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Context in which torch uses `count` threads; one is fastest for tiny models."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
