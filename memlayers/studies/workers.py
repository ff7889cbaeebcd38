"""Worker processes of a launcher: they end with their study, and keep freed memory."""

import ctypes
import os
import signal
import sys
import threading
import time

STUDY = "MEMLAYERS_STUDY"  # environment variable of workers: the id of the study's process
LOOK, GRACE = 1.0, 30.0  # seconds between checks; and for saving a checkpoint, as many as torchrun gives


def wait_for_workers() -> None:
    """Mark this process as the study's: workers that it starts from here on end with it."""
    os.environ[STUDY] = str(os.getpid())


def end_with_study() -> None:
    """In a worker: when the study's process is gone, send SIGTERM to this one, so that its run saves a checkpoint, and
    then exit.

    The end of the pipe from which workers take runs cannot be used: other workers hold it open.
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

    Only for our own processes, as it affects the whole process and overrides MALLOC_TRIM_THRESHOLD_. No effect without
    glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the largest that is accepted; larger tensors are mapped
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
