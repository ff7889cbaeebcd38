"""What a run needs to go on, beside the record to be: the same command continues it, to the same digits.

A run keeps a checkpoint every few minutes, and when it is asked to stop (Ctrl-C, SIGTERM, Slurm's SIGUSR1 or SIGUSR2);
it is gone when the record is there. Each is read back before it takes the place of the one before.
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
from memlayers.training.checkpoint_files import CheckedFile, checkpoint_path, damage, tables_path, tell, tidy
from memlayers.training.divergence import Diverged, is_finite, noticed
from memlayers.training.learner import FactLearner

KEY = "memlayers"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def identity(config: RunConfig) -> dict[str, Any]:
    """What a run and its checkpoint must share, or digits would be neither's."""
    on_gpu = str(config.trainer.get("accelerator")) in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    return {"digest": digest(config), "seed": config.seed, "kernels": selected_implementation(config.kernels, on_gpu)}


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, by which signal, and the step from which it goes on; None where nothing is kept."""

    def __init__(self, number: int, step: int | None):
        super().__init__(number, step)
        self.number, self.step = number, step


class Checkpointer(lightning.Callback):
    """Saves every so many seconds, and at the next step after a signal to stop, which then ends the run; a second
    signal ends it at once. Without `seconds`, nothing is kept.

    A signal that somebody handles already goes on to them once the run is saved: a submitit job puts itself back into
    Slurm's queue and exits.
    """

    def __init__(self, config: RunConfig, seconds: float | None, first: int = 0):
        self.path, self.seconds = checkpoint_path(config), seconds
        self.identity = identity(config)
        self.step, self.kept = first, first or None
        self.asked = 0  # the signal to stop
        self.theirs: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}  # before Lightning's own
        self.is_theirs = False  # while they handle it
        self.began = self.last = time.monotonic()
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.began = self.last = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.stop) for number in SIGNALS}

    def stop(self, number: int, frame: FrameType | None) -> None:
        if self.asked and ranks.count() == 1:  # torchrun passes a signal on that a process may have, too
            raise KeyboardInterrupt
        self.asked = number

    def restore(self) -> None:
        """Signals mean what they did before; Lightning puts back what it found after that."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.restore()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # At the start of a step all progress counters of Lightning agree; at the end of one they do not yet.
        self.step = batch_idx
        due = self.seconds is not None and time.monotonic() - self.last >= self.seconds
        saves, asked = ranks.most(due, self.asked)  # processes save and stop at the same step
        if batch_idx != (self.kept or 0) and self.seconds is not None and (saves or asked):
            self.save(trainer)
        if asked:
            self.asked = asked  # never back to 0: a signal may have come since
            self.leave()

    def leave(self) -> None:
        """Ends the run, or leaves it to whoever handled the signal before."""
        handler = self.theirs[self.asked]
        if self.asked == signal.SIGINT or not callable(handler):
            raise KeyboardInterrupt
        self.is_theirs = True
        handler(self.asked, None)
        self.asked, self.is_theirs = 0, False  # they did not exit, as submitit does not for SIGTERM: the run goes on

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Of a long run, so that nothing is lost while it is measured."""
        self.restore()
        (long,) = ranks.most(self.seconds is not None and time.monotonic() - self.began >= self.seconds)
        if long:
            self.step += 1
            self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """One that cannot be written is tried again when the next one is due.

        Raises Diverged instead of keeping a model that is not finite: what was kept before is better.
        """
        model = cast(FactLearner, trainer.lightning_module).model
        (broken,) = ranks.most(not is_finite(model))
        if broken:
            raise Diverged(f"the model is not finite at step {self.step}", noticed(model, self.step, None))
        try:
            trainer.save_checkpoint(self.path)
            (written,) = ranks.most(cast(CheckedFile, trainer.strategy.checkpoint_io).is_written)
            self.kept = self.step if written else self.kept
        except CheckpointException as error:  # of all processes, as shards are written together
            tell(self.path, str(next(iter(error.failures.values()))[0]))
        tidy(self.path, self.kept)
        self.last = time.monotonic()

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.identity | {"step": self.step}
        if pl_module.shards:
            folder = tables_path(self.path, self.step)
            shards.keep(checkpoint, pl_module.value_parameters, folder)
            checkpoint[KEY]["tables"] = shards.checksums(folder) if ranks.is_first() else {}


def step_kept(config: RunConfig) -> int | None:
    """The step from which this run goes on, or None where it has to begin.

    A damaged checkpoint is told and put aside. Raises ValueError for one of other kernels, whose digits are others.
    """
    path = checkpoint_path(config)
    if not path.is_file():
        return None
    found, wrong = None, damage(path)
    if wrong is None:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[KEY]
        except Exception as error:  # torch raises a dozen kinds
            wrong = type(error).__name__
    if found is not None and "tables" in found:
        folder = tables_path(path, found["step"])
        if not folder.is_dir() or shards.checksums(folder) != found["tables"]:
            found, wrong = None, f"checksum of {folder}"
    if found is None:
        aside = path.with_suffix(".ckpt.damaged")
        os.replace(path, aside)
        print(f"memlayers: {aside}: damaged ({wrong}); the run begins again", file=sys.stderr, flush=True)
        return None
    for key, own in identity(config).items():
        if found[key] != own:
            raise ValueError(
                f"{path}: was saved with {key} {found[key]}; this run has {key} {own}; accepted: "
                + (f"kernels={found[key]}, or without that file" if key == "kernels" else "without that file")
            )
    return int(found["step"])
