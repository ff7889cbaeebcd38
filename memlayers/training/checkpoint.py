"""Checkpoints of a run: the same command resumes an interrupted run and gives the same digits.

A run saves a checkpoint every few minutes, and when it is asked to stop (Ctrl-C, SIGTERM, Slurm's SIGUSR1 or SIGUSR2),
beside the place of its record. A checkpoint is read back before it replaces the one before, and is deleted once the
record is written.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, cast

import lightning
import torch
from torch.distributed.checkpoint.api import CheckpointException

from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.kernels import selected_implementation
from memlayers.training import ranks, shards
from memlayers.training.checkpoint_files import (
    CheckedFile,
    checkpoint_path,
    damage,
    remove_tables,
    report_unwritten,
    tables_path,
)
from memlayers.training.divergence import Diverged, is_finite, noticed
from memlayers.training.learner import FactLearner

KEY = "memlayers"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def identity(config: RunConfig) -> dict[str, Any]:
    """What must be equal in a run and its checkpoint, or the digits of the resumed run would differ."""
    on_gpu = str(config.trainer.get("accelerator")) in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    return {"digest": digest(config), "seed": config.seed, "kernels": selected_implementation(config.kernels, on_gpu)}


class Interrupted(KeyboardInterrupt):
    """A run was stopped by signal `number`, and would resume from `step`; None if it has no checkpoint."""

    def __init__(self, number: int, step: int | None):
        super().__init__(number, step)
        self.number, self.step = number, step


class Checkpointer(lightning.Callback):
    """Saves a checkpoint every `seconds`, and at the next step after a signal to stop, which then ends the run; a
    second signal ends it at once. With seconds=None no checkpoint is saved.

    A handler that was installed before gets the signal once the checkpoint is saved: submitit's requeues its job in
    Slurm and exits.
    """

    def __init__(self, config: RunConfig, seconds: float | None, first: int, processes: list[dict[str, Any]]):
        self.path, self.seconds = checkpoint_path(config), seconds
        self.saved = identity(config) | {"processes": processes}  # code and machine of each, this one last
        self.step, self.kept = first, first or None
        self.asked = 0  # number of the signal to stop; 0: none
        self.theirs: dict[int, Any] = {
            number: signal.getsignal(number) for number in SIGNALS
        }  # handlers before Lightning's
        self.is_theirs = False  # true while one of these handlers runs
        self.began = self.last = time.monotonic()
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.began = self.last = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.stop) for number in SIGNALS}

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: stop at the next step; the second time, at once."""
        if self.asked and ranks.count() == 1:  # torchrun forwards signals, so that a process may get one twice
            raise KeyboardInterrupt
        self.asked = number

    def restore(self) -> None:
        """Put back the signal handlers from before training; Lightning then restores its own."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.restore()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # At the start of a step all progress counters of Lightning agree; at the end of one they do not yet.
        self.step = batch_idx
        due = self.seconds is not None and time.monotonic() - self.last >= self.seconds
        saves, asked = ranks.all_reduce_max(due, self.asked)  # processes save and stop at the same step
        if batch_idx != (self.kept or 0) and self.seconds is not None and (saves or asked):
            self.save(trainer)
        if asked:
            self.asked = asked  # never back to 0: a signal may have come since
            self.leave()

    def leave(self) -> None:
        """End the run, or call the handler that the signal had before."""
        handler = self.theirs[self.asked]
        if self.asked == signal.SIGINT or not callable(handler):
            raise KeyboardInterrupt
        self.is_theirs = True
        handler(self.asked, None)
        self.asked, self.is_theirs = 0, False  # the handler did not exit, as submitit's for SIGTERM: the run goes on

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Save a last checkpoint after a long run, before it is measured."""
        self.restore()
        (long,) = ranks.all_reduce_max(self.seconds is not None and time.monotonic() - self.began >= self.seconds)
        if long:
            self.step += 1
            self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Save a checkpoint. If it cannot be written, the run goes on, and tries again when the next one is due.

        Raises Diverged if the model is not finite, and leaves the last checkpoint as it is.
        """
        model = cast(FactLearner, trainer.lightning_module).model
        (broken,) = ranks.all_reduce_max(not is_finite(model))
        if broken:
            raise Diverged(f"the model is not finite at step {self.step}", noticed(model, self.step, None))
        try:
            trainer.save_checkpoint(self.path)
            (written,) = ranks.all_reduce_max(cast(CheckedFile, trainer.strategy.checkpoint_io).is_written)
            self.kept = self.step if written else self.kept
        except CheckpointException as error:  # raised in all processes, which write shards together
            report_unwritten(self.path, str(next(iter(error.failures.values()))[0]))
        remove_tables(self.path, self.kept)
        self.last = time.monotonic()

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.saved | {"step": self.step}
        if pl_module.shards:
            folder = tables_path(self.path, self.step)
            shards.keep(checkpoint, pl_module.value_parameters, folder)
            checkpoint[KEY]["tables"] = shards.checksums(folder) if ranks.is_first() else {}


def step_kept(config: RunConfig) -> int | None:
    """The step from which this run resumes, or None without a checkpoint.

    A damaged checkpoint is reported and renamed. Raises ValueError for a checkpoint of another configuration or of
    other kernels, which would give other digits.
    """
    path = checkpoint_path(config)
    if not path.is_file():
        return None
    saved, wrong = None, damage(path)
    if wrong is None:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[KEY]
        except Exception as error:  # torch.load raises many kinds
            wrong = type(error).__name__
    if saved is not None and "tables" in saved:
        folder = tables_path(path, saved["step"])
        if not folder.is_dir() or shards.checksums(folder) != saved["tables"]:
            saved, wrong = None, f"checksum of {folder}"
    if saved is None:
        aside = path.with_suffix(".ckpt.damaged")
        os.replace(path, aside)
        print(f"memlayers: {aside}: damaged ({wrong}); the run begins again", file=sys.stderr, flush=True)
        return None
    for key, value in identity(config).items():
        if saved[key] != value:
            raise ValueError(
                f"{path}: was saved with {key} {saved[key]}; this run has {key} {value}; accepted: "
                + (f"kernels={saved[key]}, or without that file" if key == "kernels" else "without that file")
            )
    return int(saved["step"])


def processes_kept(config: RunConfig) -> list[dict[str, Any]]:
    """Code and machine of each process that trained a run up to its checkpoint, which is there."""
    processes: list[dict[str, Any]] = torch.load(
        checkpoint_path(config), map_location="cpu", weights_only=True, mmap=True
    )[KEY]["processes"]
    return processes
