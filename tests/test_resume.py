"""Runs that go on from a checkpoint: to the same digits, and from none of another run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import digits, small
from lightning.pytorch.loggers import CSVLogger

from memlayers.kernels import in_use
from memlayers.training import checkpoint
from memlayers.training.checkpoint import checkpoint_path
from memlayers.training.record import read_record, record_path
from memlayers.training.run import run
from memlayers.training.trainer import build_logger


@pytest.mark.parametrize("settings", [["ffn=dense"], ["ffn=memory"], ["ffn=memory", "model.ffn.value_dtype=bfloat16"]])
def test_resumed_run_ends_in_the_same_digits(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(small(tmp_path / "whole", *settings))

    saved = tmp_path / "saved.ckpt"
    config = small(tmp_path / "half", *settings, "save_checkpoint=true")
    save = checkpoint.Checkpointer.save

    def save_and_stop(self: checkpoint.Checkpointer, trainer: Any) -> None:
        save(self, trainer)
        if self.step == 16:
            shutil.copy(self.path, saved)
            raise RuntimeError("the power went off")

    monkeypatch.setattr(checkpoint.Checkpointer, "save", save_and_stop)
    with pytest.raises(RuntimeError, match="the power went off"):
        run(config)
    failed = read_record(record_path(config))
    assert failed is not None and failed["status"] == "failed" and "power" in failed["error"]

    resumed = run(small(tmp_path / "half", *settings, f"checkpoint={saved}"))
    assert digits(resumed) == digits(whole)


def test_checkpoint_of_another_run_or_truncated_is_refused(tmp_path: Path) -> None:
    config = small(tmp_path, "save_checkpoint=true")
    run(config)
    path = checkpoint_path(config)
    others = [("seed=3", "seed"), ("optim.lr=1e-4", "digest")]
    if in_use("auto") != "reference":
        others.append(("kernels=reference", "saved with kernels native"))
        record_path(config).unlink()  # it is the same experiment
    for change, complaint in others:
        with pytest.raises(ValueError, match=complaint) as caught:
            run(small(tmp_path, change, f"checkpoint={path}"))
        assert "\n" not in str(caught.value)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="truncated") as caught:
        run(small(tmp_path, "seed=4", f"checkpoint={cut}"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no such file"):
        run(small(tmp_path, "seed=4", f"checkpoint={tmp_path / 'none.ckpt'}"))


def test_the_logs_of_a_resumed_run_leave_those_before_alone(tmp_path: Path) -> None:
    settings = ("logger=csv", "save_checkpoint=true")
    config = small(tmp_path, *settings)
    run(config)
    before, after = (
        build_logger(small(tmp_path, *settings, *more)) for more in ([], [f"checkpoint={checkpoint_path(config)}"])
    )
    assert isinstance(before, CSVLogger) and isinstance(after, CSVLogger)
    assert Path(after.log_dir) == Path(before.log_dir).with_name(f"{Path(before.log_dir).name}-from-24")
