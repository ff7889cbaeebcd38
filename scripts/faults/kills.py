"""Runs that are killed, stopped, cut off from their terminal, their disk or each other, and started again."""

import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from faults.commands import ALONE, SWEEP, begin, digits

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGUSR1": signal.SIGUSR1}
LONG = ["training.steps=600", "checkpoint_minutes=0.01"]
Result = dict[str, Any]


def in_folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"memlayers-{name}-"))


def to_the_end(words: list[str], results: Path) -> dict[str, Any]:
    process = begin(words, results)
    _, said = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words}: exit code {process.returncode}: {said[-500:]}")
    return digits(results)


def soak(minutes: float, seed: int = 0) -> list[Result]:
    """The same sweep again and again: each is killed at random moments, by random signals, until it has all records."""
    draw, ends = random.Random(seed), time.monotonic() + 60 * minutes
    whole = to_the_end([*SWEEP, *LONG], folder := in_folder("whole"))
    shutil.rmtree(folder)
    tried, survived, sweeps, lost = dict.fromkeys(SIGNALS, 0), dict.fromkeys(SIGNALS, 0), 0, 0
    while time.monotonic() < ends:
        folder, sent = in_folder("soak"), []
        while True:
            process = begin([*SWEEP, *LONG], folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            name = draw.choice(list(SIGNALS))
            try:
                process.wait(draw.uniform(4, 20))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, SIGNALS[name])
                sent.append(name)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:  # a process that does not end when it is asked to
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    sent.append("SIGKILL")
            if process.returncode == 0:
                break
        found = digits(folder)
        wrong = sum(found.get(key) != record for key, record in whole.items())
        sweeps, lost = sweeps + 1, lost + wrong
        for name in sent:
            tried[name] += 1
            survived[name] += wrong == 0
        shutil.rmtree(folder)
    kinds = [
        {"name": f"sweeps hit by {name}", "tried": tried[name], "survived": survived[name], "lost": 0}
        for name in SIGNALS
    ]
    return [
        {
            "name": f"sweeps of 4 runs in a soak of {minutes:g} minutes",
            "tried": sweeps,
            "survived": sweeps,
            "lost": lost,
        },
        *kinds,
    ]


def damaged_checkpoints(cases: int, seed: int = 0) -> list[Result]:
    """One bit of a checkpoint is another: told, put aside, and the run has the digits that it always has."""
    draw, words = random.Random(seed), [*ALONE, "training.steps=200", "checkpoint_minutes=0.01"]
    whole = to_the_end(words, in_folder("whole"))
    survived = told = 0
    start = in_folder("start")
    while not (kept := [*start.rglob("*.ckpt")]):
        process = begin(words, start)
        while process.poll() is None and not [*start.rglob("*.ckpt")]:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else shutil.rmtree(start)
        process.wait()
    good = kept[0].read_bytes()
    for _ in range(cases):
        data = bytearray(good)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        kept[0].write_bytes(data)
        process = begin(words, start)
        _, said = process.communicate()
        told += "damaged" in said
        survived += process.returncode == 0 and digits(start) == whole
        for path in [*start.rglob("*.json"), *start.rglob("*.damaged")]:
            path.unlink()
    return [
        {
            "name": f"a bit flipped in a checkpoint ({told} told, the others outside of what is read)",
            "tried": cases,
            "survived": survived,
            "lost": cases - survived,
        }
    ]


def small_files_only() -> None:
    """As on a full disk: what is larger than a record cannot be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def surroundings(cases: int) -> list[Result]:
    """A disk that takes no checkpoint, a pipe that closes, and two processes at one run."""
    words = [*ALONE, "training.steps=200", "checkpoint_minutes=0"]
    whole = to_the_end(words, in_folder("whole"))
    full = closed = both = 0
    for _ in range(cases):
        folder = in_folder("full")
        process = begin(words, folder, preexec_fn=small_files_only)
        _, said = process.communicate()
        full += process.returncode == 0 and "not written" in said and digits(folder) == whole

        folder = in_folder("pipe")
        process = begin([word for word in words if word != "progress=none"], folder)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait()
        closed += process.returncode == 0 and digits(folder) == whole

        folder = in_folder("twice")
        first, second = begin(words, folder), begin(words, folder)
        told = first.communicate()[1] + second.communicate()[1]
        both += digits(folder) == whole and "another process is at this run" in told and not first.returncode
    return [
        {"name": name, "tried": cases, "survived": survived, "lost": cases - survived}
        for name, survived in (
            ("a disk too full for checkpoints", full),
            ("a pipe that is closed after a line", closed),
            ("the same run started twice at once", both),
        )
    ]
