"""Checkpoints beside the record, from which a run goes on to the same digits as if it had never stopped."""

import os
from pathlib import Path
from typing import Any

import lightning
import torch

from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.kernels import in_use
from memlayers.training.record import record_path

KEY = "memlayers"


def checkpoint_path(config: RunConfig) -> Path:
    return record_path(config).with_suffix(".ckpt")


def identity(config: RunConfig) -> dict[str, Any]:
    """What a run and its checkpoint must share, or digits would be neither's."""
    return {"digest": digest(config), "seed": config.seed, "kernels": in_use(config.kernels)}


class Checkpointer(lightning.Callback):
    """Saves every `every` steps and at the end, atomically; each save replaces the one before."""

    def __init__(self, config: RunConfig, every: int):
        self.path, self.every = checkpoint_path(config), every
        self.identity = identity(config)
        self.step = 0

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # At the start of a step all progress counters of Lightning agree; at the end of one they do not yet.
        self.step = batch_idx
        if batch_idx and batch_idx % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.step += 1
        self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        scratch = self.path.with_suffix(".ckpt.tmp")
        trainer.save_checkpoint(scratch)
        os.replace(scratch, self.path)

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.identity | {"step": self.step}


def read_checkpoint(config: RunConfig) -> int:
    """The step at which the checkpoint of this very run was saved.

    Raises ValueError for a file that is missing, truncated, not ours, or of another configuration, seed or kernels.
    """
    assert config.checkpoint is not None
    path = Path(config.checkpoint)
    if not path.is_file():
        raise ValueError(f"checkpoint={path}: no such file; accepted: a .ckpt file that save_checkpoint=true wrote")
    mine = identity(config)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)[KEY]
        step, saved = int(found["step"]), {key: found[key] for key in mine}
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ValueError(
            f"checkpoint={path}: truncated, or not a checkpoint of memlayers ({type(error).__name__}); "
            "accepted: a .ckpt file that save_checkpoint=true wrote"
        ) from None
    for key, own in mine.items():
        if saved[key] != own:
            raise ValueError(
                f"checkpoint={path}: was saved with {key} {saved[key]}; this run has {key} {own}; accepted: the "
                "command line that saved it, with nothing but checkpoint= added"
                + (f", and kernels={saved[key]} if this machine has others" if key == "kernels" else "")
            )
    return step
