"""Faults of running commands: signals, damaged checkpoints, a full disk, a closed pipe, two processes at one run."""

import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from faults.commands import ALONE, SWEEP, begin, digits

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGUSR1": signal.SIGUSR1}
ONE = (*ALONE, "training.steps=200", "checkpoint_minutes=0")
Result = dict[str, Any]


@contextmanager
def folder_of_its_own() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="memlayers-") as folder:
        yield Path(folder)


@cache
def to_the_end(*words: str) -> dict[str, Any]:
    """The records of an uninterrupted command; not to be changed."""
    with folder_of_its_own() as folder:
        process = begin([*words], folder)
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{words}: exit code {process.returncode}: {errors[-500:]}")
        return digits(folder)


def killed_until_done(words: list[str], folder: Path, lasts: float, draw: random.Random) -> list[str]:
    """Start a command, send it a random signal at a random moment, and repeat until it finishes; returns the signals.

    `lasts` is how many seconds it takes uninterrupted; from a third of that on, it has computed something.
    """
    sent = []
    while True:
        process = begin(words, folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(lasts * draw.uniform(0.3, 1.3))
        except subprocess.TimeoutExpired:
            sent.append(draw.choice(list(SIGNALS)))
            os.killpg(process.pid, SIGNALS[sent[-1]])
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # it did not end by the signal
                sent.append("SIGKILL")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            return sent


def soak(minutes: float, steps: int, seed: int = 0) -> list[Result]:
    """For some minutes, run a sweep with random signals until it has all records; those that differ are lost.

    `steps` is the length of each of its runs.
    """
    draw, ends = random.Random(seed), time.monotonic() + 60 * minutes
    words = [*SWEEP, f"training.steps={steps}", "checkpoint_minutes=0.01"]
    began = time.monotonic()
    whole, sweeps, lost = to_the_end(*words), 0, 0
    lasts = time.monotonic() - began
    tried, survived = dict.fromkeys(("sweeps", *SIGNALS), 0), dict.fromkeys(("sweeps", *SIGNALS), 0)
    while not sweeps or time.monotonic() < ends:
        with folder_of_its_own() as folder:
            sent, found = killed_until_done(words, folder, lasts, draw), digits(folder)
        wrong = sum(found.get(key) != record for key, record in whole.items())
        sweeps, lost = sweeps + 1, lost + wrong
        for name in ("sweeps", *sent):
            tried[name] += 1
            survived[name] += not wrong
    named = {"sweeps": f"sweeps of {len(whole)} runs in a soak of {minutes:g} minutes"}
    return [
        {
            "name": named.get(name, f"{name} at a random moment of such a sweep"),
            "tried": tried[name],
            "survived": survived[name],
            "lost": lost if name == "sweeps" else tried[name] - survived[name],
        }
        for name in tried
    ]


def damaged_checkpoints(cases: int, seed: int = 0) -> list[Result]:
    """Flip a bit of a checkpoint: the run reports it, starts again, and gives the same digits."""
    draw, words = random.Random(seed), list(ONE)
    whole, survived, told = to_the_end(*ONE), 0, 0
    with folder_of_its_own() as folder:
        process = begin(words, folder)
        while not (kept := [*folder.rglob("*.ckpt")]):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        good = kept[0].read_bytes()
        for _ in range(cases):
            data = bytearray(good)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            kept[0].write_bytes(data)
            process = begin(words, folder)
            _, errors = process.communicate()
            told += "damaged" in errors
            survived += process.returncode == 0 and digits(folder) == whole
            for path in [*folder.rglob("*.json"), *folder.rglob("*.damaged")]:
                path.unlink()
    name = f"a bit flipped in a checkpoint ({told} reported, the others in bytes that are never read)"
    return [{"name": name, "tried": cases, "survived": survived, "lost": cases - survived}]


def small_files_only() -> None:
    """Let the process write no file larger than a record, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def surroundings(cases: int) -> list[Result]:
    """A disk too full for checkpoints, a closed pipe, and two processes at one run."""
    words, whole = list(ONE), to_the_end(*ONE)

    def full_disk(folder: Path) -> bool:
        process = begin(words, folder, preexec_fn=small_files_only)
        _, errors = process.communicate()
        return process.returncode == 0 and "not written" in errors

    def closed_pipe(folder: Path) -> bool:
        process = begin([word for word in words if word != "progress=none"], folder)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        return process.wait() == 0

    def twice(folder: Path) -> bool:
        first, second = begin(words, folder), begin(words, folder)
        errors = first.communicate()[1] + second.communicate()[1]
        return "another process is at this run" in errors and not first.returncode and not second.returncode

    faults = {
        "a disk too full for checkpoints": full_disk,
        "a pipe that is closed after a line": closed_pipe,
        "the same run started twice at once": twice,
    }
    found = []
    for name, fault in faults.items():
        survived = 0
        for _ in range(cases):
            with folder_of_its_own() as folder:
                survived += fault(folder) and digits(folder) == whole
        found.append({"name": name, "tried": cases, "survived": survived, "lost": cases - survived})
    return found
