"""Processes that a launcher starts for the runs of a study: what they take, and that they end with the study."""

import ctypes
import os
import signal
import sys
import threading
import time

STUDY = "MEMLAYERS_STUDY"  # in the environment of workers: the process that waits for them
LOOK, GRACE = 1.0, 30.0  # seconds between two looks; for a run to be saved, as torchrun gives it


def wait_for_workers() -> None:
    """Those that this process starts from here on end with it."""
    os.environ[STUDY] = str(os.getpid())


def end_with_study() -> None:
    """In a worker: once the study's process is gone, whatever ended it, SIGTERM, by which a run is saved, and the end.

    The pipe from which a worker takes its next run is no sign: other workers hold it open, and all would wait for ever.
    """
    parent = os.getppid()
    name = f"{STUDY}={parent}"
    if os.environ.get(STUDY) == str(parent) and name not in {thread.name for thread in threading.enumerate()}:
        threading.Thread(target=_watch, args=(parent,), name=name, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees for the next one, up to 2 GiB, instead of asking for cleared pages each time.

    For processes of ours only, as it is for the whole process, whatever MALLOC_TRIM_THRESHOLD_ says. Without glibc
    nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the most that is accepted; larger tensors are mapped one by one
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
