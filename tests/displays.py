"""Records and notes that a test writes where runs would, and what a display prints of them."""

import os
import re
import time
from io import StringIO

from records import record as made_record
from rich.console import Console

from memlayers.config import RunConfig
from memlayers.studies.display import StudyDisplay
from memlayers.training.progress_notes import partial_path
from memlayers.training.record import record_path, with_checksum, write_json

PATIENCE = 20.0  # seconds until a test gives up; what it waits for takes milliseconds


def plain() -> Console:
    return Console(file=StringIO(), width=80)


def terminal() -> Console:
    return Console(file=StringIO(), width=100, height=30, force_terminal=True)


def printed(console: Console) -> str:
    """What was written, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue()).replace("\r", "")


def finish(job: RunConfig, recall: float = 0.5, **changes) -> None:
    record = made_record(job.arm, job.seed, recall, seconds=12.3) | changes
    write_json(record_path(job), with_checksum(record))


def fail(job: RunConfig, error: str, age: float = -1.0) -> None:
    """A failure that is `age` seconds old; one of the future is surely later than the display."""
    write_json(record_path(job), with_checksum(made_record(job.arm, job.seed, error=error)))
    os.utime(record_path(job), times=(time.time() - age,) * 2)


def note(job: RunConfig, step: int, steps: int, loss: float | None = None, recall: float | None = None) -> None:
    write_json(partial_path(record_path(job)), {"step": step, "steps": steps, "loss": loss, "recall": recall})


def wait_for(console: Console, text: str) -> None:
    end = time.monotonic() + PATIENCE
    while text not in printed(console):
        assert time.monotonic() < end, f"{text!r} did not come: {printed(console)!r}"
        time.sleep(0.002)


def rendered(shown: StudyDisplay) -> list[str]:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(shown.render())
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]
