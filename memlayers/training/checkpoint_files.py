"""The files of a checkpoint: verified before they replace the last ones, and deleted when the run is finished."""

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
    """The folder of the sharded tables of this step, beside the checkpoint of the rest."""
    return checkpoint.with_suffix(".tables") / str(step)


class CheckedFile(TorchCheckpointIO):
    """Writes a scratch file, verifies it and replaces the checkpoint. A failed write is reported, not raised."""

    is_written = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        scratch, self.is_written = Path(path).with_suffix(".ckpt.tmp"), False
        try:
            super().save_checkpoint(checkpoint, scratch, storage_options)
            if damage(scratch):
                raise OSError(0, "what was written cannot be read back")
            os.replace(scratch, path)
            self.is_written = True
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a full disk
            scratch.unlink(missing_ok=True)
            report_unwritten(path, getattr(error, "strerror", None) or "the disk may be full")


def report_unwritten(path: Path, why: str) -> None:
    """Say on stderr, once for all processes, that a checkpoint was not written."""
    if ranks.is_first():
        print(f"memlayers: {path}: not written ({why}); the run goes on", file=sys.stderr, flush=True)


def remove_tables(checkpoint: Path, step: int | None) -> None:
    """Delete the sharded tables of all steps but `step`; None: of all steps."""
    if ranks.is_first():
        for folder in checkpoint.with_suffix(".tables").glob("*"):
            if step is None or folder != tables_path(checkpoint, step):
                shutil.rmtree(folder, ignore_errors=True)


def delete_checkpoint(config: RunConfig) -> None:
    """Delete the checkpoint of a finished run."""
    checkpoint_path(config).unlink(missing_ok=True)
    shutil.rmtree(checkpoint_path(config).with_suffix(".tables"), ignore_errors=True)


def damage(path: Path) -> str | None:
    """What is wrong with a file of torch.save (a zip file with checksums), or None for an intact one."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        return None if part is None else f"checksum of {part}"
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
