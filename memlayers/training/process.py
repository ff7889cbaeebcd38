"""What a run takes of its process and of its folder while it lasts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from memlayers.training.record import check_writable


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Within, no other process is at the run of this record; a lock goes with its process, however that ends."""
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
    """Within, torch has `count` threads: one a process is fastest for tiny models."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
