"""Progress of a run: a small file that a study's display reads, and a bar on the terminal."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.console import Console

from memlayers.config import RunConfig
from memlayers.training import ranks
from memlayers.training.progress_notes import partial_path
from memlayers.training.record import write_json

EVERY = 0.5  # seconds between writes


class RunProgress(lightning.Callback):
    """Writes {pid, step, steps, loss, recall} to a file beside the record, about twice a second, until the run ends.

    Any process on the same file system can read it, whatever launcher started the run. Raises ValueError on entry if
    the folder cannot be written.
    """

    def __init__(self, record: Path, config: RunConfig, steps: int):
        self.path = partial_path(record)
        self.note: dict[str, Any] = {"pid": os.getpid(), "arm": config.arm, "seed": config.seed, "step": 0}
        self.note |= {"steps": steps, "loss": None, "recall": None}
        self.last = time.monotonic()

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

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        seen = {name: float(value) for name, value in trainer.callback_metrics.items() if name in ("loss", "recall")}
        self.reached(batch_idx + 1, **seen)

    def reached(self, step: int, **seen: float) -> None:
        """Note a step, with what is known there, unless the last note is younger than EVERY seconds."""
        if (now := time.monotonic()) - self.last >= EVERY:
            self.last = now
            self.write(self.note | {"step": step} | seen)


def steps_done(trainer: lightning.Trainer) -> int:
    """Steps of the whole run so far, with those before a checkpoint."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.completed


class PlainLines(ProgressBar):
    """Prints ten lines a run, for pipes, logs and dumb terminals."""

    def __init__(self, tokens_per_step: int):
        super().__init__()
        self.tokens_per_step = tokens_per_step
        self.began, self.first = time.perf_counter(), 0

    def disable(self) -> None:
        self.tokens_per_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.began, self.first = time.perf_counter(), steps_done(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        steps = int(self.total_train_batches)
        step = batch_idx + 1
        if step % max(1, steps // 10) and step != steps:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        speed = (step - self.first) * self.tokens_per_step / (time.perf_counter() - self.began)
        known = [
            f"{name} {metrics[name]:.3f}" for name in ("loss", "recall") if name in metrics
        ]  # no loss after a resume
        print("  ".join([f"step {step}/{steps}", *known, f"{speed:,.0f} tokens/s"]), flush=True)


class TerminalBar(RichProgressBar):
    """Lightning's Rich bar with loss, recall and tokens per second."""

    def __init__(self, tokens_per_step: int):
        super().__init__(refresh_rate=20)
        self.tokens_per_step = tokens_per_step
        self.began, self.first = time.perf_counter(), 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.began, self.first = time.perf_counter(), steps_done(trainer)

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        metrics = {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        done = steps_done(trainer) - self.first
        speed = done * self.tokens_per_step / max(1e-9, time.perf_counter() - self.began)
        return metrics | {"tokens/s": f"{speed:,.0f}"}


def terminal_bar(tokens_per_step: int) -> ProgressBar:
    """A bar on a terminal that can redraw it, else lines."""
    return (TerminalBar if Console().is_terminal and not Console().is_dumb_terminal else PlainLines)(tokens_per_step)
