"""Progress of a run: a small file that a study's display reads, and a bar on the terminal, or lines elsewhere."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from memlayers.config import RunConfig
from memlayers.training import ranks
from memlayers.training.progress_notes import partial_path
from memlayers.training.record import write_json

EVERY = 0.5  # seconds between writes


def can_redraw() -> bool:
    """Whether this process writes to a terminal that can redraw a line."""
    return Console().is_terminal and not Console().is_dumb_terminal


def steps_done(trainer: lightning.Trainer) -> int:
    """Steps of the whole run so far, with those before a checkpoint."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed


class RunProgress(lightning.Callback):
    """Writes {step, steps, loss, recall} to a file beside the record, about twice a second, until the run ends; and
    where progress=auto has no terminal to redraw, prints ten lines a run.

    Any process on the same file system can read the file, whatever launcher started the run. Raises ValueError on entry
    if the folder cannot be written.
    """

    def __init__(self, record: Path, config: RunConfig, steps: int, tokens_per_step: int):
        self.path, self.steps, self.tokens_per_step = partial_path(record), steps, tokens_per_step
        self.note: dict[str, Any] = {"step": 0, "steps": steps, "loss": None, "recall": None}
        self.prints = config.progress == "auto" and ranks.is_first() and not can_redraw()
        self.last = self.began = time.monotonic()
        self.first = 0

    def __enter__(self) -> "RunProgress":
        self.write(self.note)
        return self

    def write(self, note: dict[str, Any]) -> None:
        if ranks.is_first():
            write_json(self.path, note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if ranks.is_first():
            self.path.unlink(missing_ok=True)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.began, self.first = time.monotonic(), steps_done(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, metrics = batch_idx + 1, trainer.callback_metrics
        seen = {name: float(metrics[name]) for name in ("loss", "recall") if name in metrics}  # no loss after a resume
        self.reached(step, **seen)
        if self.prints and (step % max(1, self.steps // 10) == 0 or step == self.steps):
            known = [f"{name} {value:.3f}" for name, value in seen.items()]
            print("  ".join([f"step {step}/{self.steps}", *known, self.speed(step)]), flush=True)

    def reached(self, step: int, **seen: float) -> None:
        """Note a step, with what is known there, unless the last note is younger than EVERY seconds."""
        if (now := time.monotonic()) - self.last >= EVERY:
            self.last = now
            self.write(self.note | {"step": step} | seen)

    def speed(self, step: int) -> str:
        tokens = (step - self.first) * self.tokens_per_step
        return f"{tokens / max(1e-9, time.monotonic() - self.began):,.0f} tokens/s"


class TerminalBar(RichProgressBar):
    """Lightning's Rich bar with loss, recall and tokens per second."""

    def __init__(self, progress: RunProgress):
        super().__init__(refresh_rate=20)
        self.run = progress

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        metrics = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        return metrics | {"speed": self.run.speed(steps_done(trainer))}
