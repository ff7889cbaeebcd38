"""The files of a checkpoint: read back before they take the place of those before, and gone when the run is done."""

import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from memlayers.config import RunConfig
from memlayers.training import ranks
from memlayers.training.record import record_path


def checkpoint_path(config: RunConfig) -> Path:
    return record_path(config).with_suffix(".ckpt")


def tables_path(checkpoint: Path, step: int) -> Path:
    """Where sharded tables are kept, beside the checkpoint of the rest."""
    return checkpoint.with_suffix(".tables") / str(step)


class CheckedFile(TorchCheckpointIO):
    """Written beside the file and read back before it takes its place. What cannot be written is told, and no error."""

    is_written = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        scratch, self.is_written = Path(path).with_suffix(".ckpt.tmp"), False
        try:
            super().save_checkpoint(checkpoint, scratch, storage_options)
            if damage(scratch):
                raise OSError(0, "what was written cannot be read back")
            os.replace(scratch, path)
            self.is_written = True
        except (OSError, RuntimeError) as error:  # torch's of a full disk is the latter
            scratch.unlink(missing_ok=True)
            tell(path, getattr(error, "strerror", None) or "the disk may be full")


def tell(path: Path, why: str) -> None:
    if ranks.is_first():
        print(f"memlayers: {path}: not written ({why}); the run goes on", file=sys.stderr, flush=True)


def tidy(checkpoint: Path, step: int | None) -> None:
    """Remove the tables of all other steps than that of the checkpoint; None: of all."""
    if ranks.is_first():
        for folder in checkpoint.with_suffix(".tables").glob("*"):
            if step is None or folder != tables_path(checkpoint, step):
                shutil.rmtree(folder, ignore_errors=True)


def forget(config: RunConfig) -> None:
    """Of a run that is done."""
    checkpoint_path(config).unlink(missing_ok=True)
    shutil.rmtree(checkpoint_path(config).with_suffix(".tables"), ignore_errors=True)


def damage(path: Path) -> str | None:
    """What is wrong with a file of torch.save, which is a zip file with a checksum for each of its parts."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        return None if part is None else f"checksum of {part}"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
