"""Runs that go on from a checkpoint: by the same command, to the same digits, and from no damaged one."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import digits, small
from lightning.pytorch.loggers import CSVLogger

from memlayers.kernels import selected_implementation
from memlayers.training import checkpoint_files
from memlayers.training import run as run_module
from memlayers.training.checkpoint import Checkpointer, Interrupted, step_kept
from memlayers.training.checkpoint_files import checkpoint_path, damage
from memlayers.training.probe import FinalMeasurement
from memlayers.training.progress import RunProgress
from memlayers.training.record import read_record, record_path
from memlayers.training.run import run
from memlayers.training.trainer import build_logger

KINDS = [["ffn=dense"], ["ffn=memory"], ["ffn=memory", "model.ffn.value_dtype=bfloat16"]]
KINDS += [["ffn=memory", "quantize.tables=int4", "quantize.noise=0.1", "quantize.when=trained"]]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """A real signal to this process, at the beginning of a step."""
    begin = Checkpointer.on_train_batch_start

    def signalled(self: Checkpointer, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == step:
            signal.raise_signal(number)
        begin(self, trainer, pl_module, batch, batch_idx)

    monkeypatch.setattr(Checkpointer, "on_train_batch_start", signalled)


@pytest.mark.parametrize("settings", KINDS)
def test_a_run_that_was_stopped_goes_on_by_the_same_command_to_the_same_digits(settings, tmp_path, monkeypatch):
    whole = run(small(tmp_path / "whole", *settings))
    config = small(tmp_path / "half", *settings)
    with monkeypatch.context() as patch:
        stop_at(patch, 16)
        with pytest.raises(Interrupted) as stopped:
            run(config)
    assert (stopped.value.number, stopped.value.step) == (signal.SIGTERM, 16)
    assert read_record(record_path(config)) is None and step_kept(config) == 16
    resumed = run(config)
    assert digits(resumed) == digits(whole)
    assert sorted(path.suffix for path in record_path(config).parent.iterdir() if path.is_file()) == [".json"]


def test_a_run_that_fails_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    """Kept at every step, as no time passes between them; a failure is a record, and no reason to begin again."""
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "half", "checkpoint_minutes=0")
    save = Checkpointer.save

    def save_and_fail(self: Checkpointer, trainer: Any) -> None:
        save(self, trainer)
        if self.step == 12:
            raise RuntimeError("the power went off")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", save_and_fail)
        with pytest.raises(RuntimeError, match="the power went off"):
            run(config)
    failed = read_record(record_path(config))
    assert failed is not None and failed["status"] == "failed" and step_kept(config) == 12
    assert digits(run(config)) == digits(whole) and step_kept(config) is None


def test_a_run_that_fails_after_its_last_step_is_measured_again_and_keeps_its_seconds(tmp_path, monkeypatch):
    whole = run(small(tmp_path / "whole"))
    config = small(tmp_path / "half", "checkpoint_minutes=0")
    with monkeypatch.context() as patch:
        patch.setattr(FinalMeasurement, "measured", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config)
    assert step_kept(config) == whole["training"]["steps"]
    resumed = run(config)
    assert digits(resumed) == digits(whole)
    assert resumed["timing"]["seconds"] > 0 and resumed["timing"]["tokens_per_second"] > 0


def test_a_record_names_the_code_and_the_machine_of_every_process_that_trained_it(tmp_path, monkeypatch):
    config = small(tmp_path, "checkpoint_minutes=0")
    stops = ((5, {"commit": "a", "dirty": True}), (9, {"commit": "b", "dirty": False}))
    for step, code in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            patch.setattr(run_module, "code_version", lambda code=code: code)
            with pytest.raises(Interrupted):
                run(config)
    resumed = run(config)
    assert [one["code"] for one in resumed["earlier"]] == [code for _, code in stops]
    assert resumed["code"] not in [one["code"] for one in resumed["earlier"]]
    assert "earlier" not in run(small(tmp_path, "checkpoint_minutes=0", "seed=7"))


def test_a_short_run_keeps_nothing_and_a_run_may_keep_nothing_at_all(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Checkpointer, "save", lambda self, trainer: saved.append(self.step))
    run(small(tmp_path))
    assert saved == []
    run(small(tmp_path, "seed=1", "checkpoint_minutes=0"))
    assert saved[0] == 1 and len(saved) == saved[-1]  # at every step, and at the end
    saved.clear()
    stop_at(monkeypatch, 3)
    with pytest.raises(Interrupted) as stopped:
        run(small(tmp_path, "seed=2", "checkpoint_minutes=null"))
    assert stopped.value.step is None and not saved


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The configuration of a run that was stopped at its sixth step, and its checkpoint."""
    config = small(tmp_path, "ffn=memory")
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Interrupted):
            run(config)
    return config, checkpoint_path(config)


def test_every_flipped_bit_of_a_tensor_is_found_and_the_run_begins_again(kept, capsys):
    config, path = kept
    good = path.read_bytes()
    assert damage(path) is None
    values = torch.load(path, weights_only=True)["state_dict"]["model.pools.0.values"].numpy().tobytes()
    start = good.index(values)
    for place in (start, start + len(values) // 2, start + len(values) - 1):
        flipped = bytearray(good)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert (damage(path) or "").startswith("checksum of ")
    assert step_kept(config) is None and not path.exists()
    aside = path.with_suffix(".ckpt.damaged")
    assert capsys.readouterr().err.startswith(f"memlayers: {aside}: damaged (checksum of ")
    assert aside.read_bytes() == bytes(flipped)


@pytest.mark.parametrize(
    "spoil", [lambda good: good[:2000], lambda good: b"", lambda good: b"no zip" * 99], ids=range(3)
)
def test_what_is_no_checkpoint_is_put_aside(kept, spoil, capsys):
    config, path = kept
    path.write_bytes(spoil(path.read_bytes()))
    assert run(config)["status"] == "ok"
    assert "damaged" in capsys.readouterr().err and path.with_suffix(".ckpt.damaged").is_file()


def test_a_checkpoint_of_other_kernels_is_refused_and_stays(kept):
    config, path = kept
    if selected_implementation("auto") == "reference":
        pytest.skip("there are no others here")
    other = small(Path(config.results), "ffn=memory", "kernels=reference")
    with pytest.raises(ValueError) as caught:
        run(other)
    assert str(caught.value) == (
        f"{path}: was saved with kernels {selected_implementation('auto')}; this run has kernels reference; accepted: "
        f"kernels={selected_implementation('auto')}, or without that file"
    )
    assert step_kept(config) == 6


def test_a_disk_that_is_full_is_told_and_the_last_checkpoint_stays(tmp_path, monkeypatch, capsys):
    config = small(tmp_path, "checkpoint_minutes=0")
    replace, calls = os.replace, []

    def full(source: Any, target: Any) -> None:
        if str(target).endswith(".ckpt") and calls.append(target) is None and len(calls) > 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        stop_at(patch, 9)
        with pytest.raises(Interrupted):
            run(config)
    line = f"memlayers: {checkpoint_path(config)}: not written (No space left on device); the run goes on"
    assert capsys.readouterr().err.count(line) == 6
    assert step_kept(config) == 3 and not checkpoint_path(config).with_suffix(".ckpt.tmp").exists()
    whole = run(small(tmp_path / "whole"))
    assert digits(run(config)) == digits(whole)


def test_what_cannot_be_read_back_does_not_take_the_place_of_what_can(tmp_path, monkeypatch):
    config = small(tmp_path, "checkpoint_minutes=0")
    monkeypatch.setattr(
        checkpoint_files, "damage", lambda path: "checksum" if checkpoint_path(config).exists() else None
    )
    stop_at(monkeypatch, 7)
    with pytest.raises(Interrupted) as stopped:
        run(config)
    monkeypatch.undo()
    assert stopped.value.step == 1 == step_kept(config)


def test_the_logs_of_a_resumed_run_leave_those_before_alone(tmp_path: Path) -> None:
    before, after = (build_logger(small(tmp_path, "logger=csv"), first) for first in (0, 24))
    assert isinstance(before, CSVLogger) and isinstance(after, CSVLogger)
    assert Path(after.log_dir) == Path(before.log_dir).with_name(f"{Path(before.log_dir).name}-from-24")


def test_lines_say_only_what_is_known(tmp_path, capsys):
    """After a resume no loss was logged yet."""
    lines = RunProgress(tmp_path / "run.json", small(tmp_path, "progress=auto"), steps=20, tokens_per_step=10)
    for metrics in ({}, {"loss": 1.5}, {"recall": 0.25, "loss": 1.5}):
        lines.on_train_batch_end(SimpleNamespace(callback_metrics=metrics), None, None, None, 3)
    said = [line.rpartition("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["step 4/20", "step 4/20  loss 1.500", "step 4/20  loss 1.500  recall 0.250"]
