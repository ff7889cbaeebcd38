"""Whole runs: the same digits twice, resumed and beside others; failures are records; mistakes are one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.kernels import in_use
from memlayers.studies.cli import verb
from memlayers.studies.compose import jobs_of
from memlayers.studies.files import CONF, load_layers
from memlayers.training.checkpoint import checkpoint_path
from memlayers.training.learner import Batches
from memlayers.training.plan import plan
from memlayers.training.record import read_record, record_path
from memlayers.training.run import run
from memlayers.training.trainer import build_logger

SMALL = ["world.num_subjects=300", "training.batch_tokens=128", "training.steps=24", "training.probes=3"]
SMALL += ["logger=none", "progress=none", "model.d_model=16", "model.hidden=24"]


FEED_FORWARDS = sorted(path.stem for path in (CONF / "ffn").glob("*.yaml"))


def small(results: Path, *overrides: str) -> RunConfig:
    return jobs_of(load_layers([*SMALL, f"results={results}", *overrides]), False)[0]


def called(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script of the project, as one calls it."""
    path = Path(__file__).parent.parent / "scripts" / script
    return subprocess.run([sys.executable, path, *words], capture_output=True, text=True)


def digits(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ between two runs of one experiment: when, where and how fast."""
    return {key: value for key, value in record.items() if key not in ("timing", "machine", "code")}


@pytest.mark.parametrize("ffn", FEED_FORWARDS)
def test_same_seed_same_record(ffn: str, tmp_path: Path) -> None:
    first = run(small(tmp_path / "a", f"ffn={ffn}"))
    torch.manual_seed(123)
    torch.rand(1000)  # whatever ran before
    second = run(small(tmp_path / "b", f"ffn={ffn}"))
    assert digits(first) == digits(second)
    other = run(small(tmp_path / "b", f"ffn={ffn}", "seed=1"))
    assert other["digest"] == first["digest"]
    assert other["training"]["final_loss"] != first["training"]["final_loss"]


@pytest.mark.parametrize(("trainer", "near"), [("cpu", 1e-4), ("cpu_bf16", 3e-2)])
def test_kernels_give_the_same_training(trainer: str, near: float, tmp_path: Path) -> None:
    """But for last digits: sums run in another order, and under autocast the kernels score in float32."""
    settings = (f"trainer={trainer}", "training.probes=8")
    reference = run(small(tmp_path / "a", *settings, "kernels=reference"))
    chosen = run(small(tmp_path / "b", *settings, "kernels=auto"))
    assert reference["digest"] == chosen["digest"]
    for one, other in zip(reference["training"]["curve"], chosen["training"]["curve"], strict=True):
        assert one == pytest.approx(other, rel=near, abs=near)


def test_probes_do_not_touch_training(tmp_path: Path) -> None:
    seldom = run(small(tmp_path, "training.probes=1"))
    often = run(small(tmp_path, "training.probes=12"))
    assert seldom["training"]["final_loss"] == often["training"]["final_loss"]
    assert seldom["recall"] == often["recall"]


@pytest.mark.parametrize("settings", [["ffn=dense"], ["ffn=memory"], ["ffn=memory", "model.ffn.value_dtype=bfloat16"]])
def test_resumed_run_ends_in_the_same_digits(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(small(tmp_path / "whole", *settings))

    saved = tmp_path / "saved.ckpt"
    config = small(tmp_path / "half", *settings, "save_checkpoint=true")
    from memlayers.training import checkpoint

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


def test_finished_run_is_not_run_again_and_failed_one_is(tmp_path: Path) -> None:
    config = small(tmp_path)
    first = run(config)
    written = record_path(config).stat().st_mtime_ns
    assert run(config) == first and record_path(config).stat().st_mtime_ns == written
    broken = json.loads(record_path(config).read_text()) | {"status": "failed"}
    record_path(config).write_text(json.dumps(broken))
    assert run(config)["status"] == "ok"


def test_a_report_of_own_records_has_a_row_for_each_configuration(tmp_path: Path) -> None:
    for rate in ("1e-3", "2e-3"):
        run(small(tmp_path, f"optim.lr={rate}", "training.steps=1"))
    done = called("report.py", str(tmp_path / "single"))
    assert done.returncode == 0, done.stderr
    for words in ("single, atlas_readings", "optim.lr", "0.001", "0.002"):
        assert words in done.stdout
    empty = called("report.py", str(tmp_path / "none"))
    assert empty.returncode == 2 and empty.stderr.startswith(f"memlayers: {tmp_path / 'none'}: no record")


def test_ctrl_c_in_a_script_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        verb(main)
    assert caught.value.code == 130 and capsys.readouterr().err == "\nmemlayers: interrupted\n"


def test_divergence_is_a_record(tmp_path: Path) -> None:
    config = small(tmp_path, "optim.lr=1e30", "optim.clip=null", "training.steps=120", "ffn=dense")
    with pytest.raises(FloatingPointError):
        run(config)
    record = read_record(record_path(config))
    assert record is not None and record["status"] == "failed" and "optim.lr" in record["error"]


def test_a_mistake_before_training_is_a_record_too(tmp_path: Path) -> None:
    config = small(tmp_path, "model.ffn.num_keys=1000000", "match.reference=null")
    with pytest.raises(ValueError, match="value tables of"):
        run(config)
    record = read_record(record_path(config))
    assert record is not None and record["status"] == "failed" and "value tables of" in record["error"]


@pytest.mark.parametrize("overrides", [["seed=1"], ["-m", "seed=1,2"]])
def test_a_folder_that_cannot_be_written_is_told_once(overrides: list[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = called("train.py", "logger=none", f"results={blocked}", *overrides)
    assert done.returncode == 2 and done.stderr.startswith(f"memlayers: results={blocked}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("overrides", [["-m", "seed=1,2"], ["progress=none"]])
def test_why_runs_failed_is_told_whether_or_not_they_show_progress(overrides: list[str], tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    words = ["world=triples", f"world.path={facts}", f"results={tmp_path}", "logger=none", *overrides]
    done = called("train.py", *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == (2 if "-m" in overrides else 1), done.stderr
    assert all(line.startswith("memlayers: memory seed ") and str(facts) in line for line in lines)


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ValueError, match="results=") as caught:
        run(small(blocked))
    assert "\n" not in str(caught.value)


def test_arms_of_the_study_cost_the_same() -> None:
    jobs = {job.arm: job for job in jobs_of(["experiment=memory_vs_dense", "seed=0"], True)}
    plans = {arm: plan(job) for arm, job in jobs.items()}
    own = plans["memory"].matched.cost
    for arm in jobs.keys() - {"dense_params"}:
        times = jobs[arm].match.times
        assert plans[arm].matched.cost.flops == pytest.approx(times * own.flops, rel=0.01), arm
        assert plans[arm].steps == plans["memory"].steps and plans[arm].batch_size == plans["memory"].batch_size
    assert plans["dense_params"].matched.cost.params == pytest.approx(own.params, rel=0.01)


@pytest.mark.slow
def test_every_arm_learns_a_small_world_by_heart(tmp_path: Path) -> None:
    """500 readings, 60 exposures: a broken gradient, mask or probe shows here."""
    for arm in FEED_FORWARDS:
        overrides = [f"arm={arm}", "world.num_subjects=500", "training.exposures=60"]
        config = jobs_of([*overrides, "training.batch_tokens=256", "logger=none", f"results={tmp_path}"], False)[0]
        record = run(config)
        assert record["recall"]["exact"] > 0.9, (arm, record["recall"]["exact"])
        assert record["recall"]["shuffled"] < 0.1


def test_one_pair_of_seeds_is_one_order_of_documents(tmp_path: Path) -> None:
    text = plan(small(tmp_path)).text
    first, again, *others = (list(Batches(text, 8, 3, seeds)) for seeds in ((0, 0), (0, 0), (0, 1), (1, 0), (1, 1)))
    assert all(torch.equal(one.tokens, two.tokens) for one, two in zip(first, again, strict=True))
    for other in others:
        assert not any(torch.equal(one.tokens, two.tokens) for one in first for two in other)
    assert not torch.equal(first[0].tokens, first[1].tokens)


def test_edited_facts_are_another_experiment(tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    found = set()
    for last in ("x", "y"):
        facts.write_text(f"subject,relation,object\na b,r,x\nc d,r,y\na d,r,{last}\n")
        found.add(digest(jobs_of(["world=triples", f"world.path={facts}"], False)[0]))
        assert digest(jobs_of(["world=triples", f"world.path={tmp_path / '.' / 'facts.csv'}"], False)[0]) in found
    assert len(found) == 2


CANNOT = ["trainer.precision=16-mixed", "trainer.devices=2", "+trainer.max_epochs=3", "trainer=gpu"]
CUT_SHORT = ["+trainer.max_steps=3", "+trainer.max_time='00:00:00:01'", "+trainer.fast_dev_run=true"]


@pytest.mark.parametrize("change", CANNOT + CUT_SHORT)
def test_what_the_trainer_cannot_do_is_one_line(change: str, tmp_path: Path) -> None:
    if change == "trainer=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="trainer") as caught:
        run(small(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_sentences_never_trained_on_are_answered(tmp_path: Path) -> None:
    """100 people told in prose: a fact learnt in some phrasings is extracted in another; strangers' are not."""
    world = ["world=biographies", "world.text=prose", "world.num_people=100", "world.name_parts=[10,10,10]"]
    world += ["world.cardinalities=[16,16]", "training.exposures=200", "training.batch_tokens=256", "optim.lr=6e-3"]
    recall = run(jobs_of([*world, "arm=dense", "logger=none", f"results={tmp_path}"], False)[0])["recall"]
    assert recall["exact"] > 0.95 and recall["held_out"] > 0.8
    assert recall["shuffled"] < 0.2 and recall["unknown"]["auroc"] > 0.8
