"""Whole runs: the same digits twice and beside others; failures are records; mistakes are one line."""

import json
from pathlib import Path

import pytest
import torch
from commands import CHOICES, digits, one, small, unasked

from memlayers.config.digest import digest
from memlayers.training.learner import Batches
from memlayers.training.plan import plan
from memlayers.training.record import read_record, record_path, with_checksum
from memlayers.training.run import run


@pytest.mark.parametrize("arm", CHOICES["ffn"])
def test_same_seed_same_record(arm: str, tmp_path: Path) -> None:
    first = run(small(tmp_path / "a", f"arm={arm}"))
    torch.manual_seed(123)
    torch.rand(1000)  # whatever ran before
    second = run(small(tmp_path / "b", f"arm={arm}"))
    assert digits(first) == digits(second)
    other = run(small(tmp_path / "b", f"arm={arm}", "seed=1"))
    assert other["digest"] == first["digest"]
    assert other["training"]["final_loss"] != first["training"]["final_loss"]


@pytest.mark.parametrize(("trainer", "near"), [("cpu", 1e-4), ("cpu_bf16", 0.1)])
def test_kernels_give_the_same_training(trainer: str, near: float, tmp_path: Path) -> None:
    """But for last digits: sums run in another order, and under autocast the kernels score in float32."""
    settings = (f"trainer={trainer}", "training.probes=8")
    reference = run(small(tmp_path / "a", *settings, "kernels=reference"))
    chosen = run(small(tmp_path / "b", *settings, "kernels=auto"))
    assert reference["digest"] == chosen["digest"]
    for point, other in zip(reference["training"]["curve"], chosen["training"]["curve"], strict=True):
        kept = [one.pop("kept", None) for one in (point, other)]  # of slots: where two scores tie, one may differ
        assert kept[0] == pytest.approx(kept[1], abs=max(near, 1e-3))
        assert point == pytest.approx(other, rel=near, abs=near)


def test_probes_do_not_touch_training(tmp_path: Path) -> None:
    seldom = run(small(tmp_path, "training.probes=1"))
    often = run(small(tmp_path, "training.probes=12"))
    assert seldom["training"]["final_loss"] == often["training"]["final_loss"]
    assert seldom["recall"] == often["recall"]


def test_one_pair_of_seeds_is_one_order_of_documents(tmp_path: Path) -> None:
    text = plan(small(tmp_path)).text
    first, again, *others = (list(Batches(text, 8, 3, seeds)) for seeds in ((0, 0), (0, 0), (0, 1), (1, 0), (1, 1)))
    assert all(torch.equal(own.tokens, two.tokens) for own, two in zip(first, again, strict=True))
    for other in others:
        assert not any(torch.equal(own.tokens, two.tokens) for own in first for two in other)
    assert not torch.equal(first[0].tokens, first[1].tokens)


def test_edited_facts_are_another_experiment(tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    found = set()
    for last in ("x", "y"):
        facts.write_text(f"subject,relation,object\na b,r,x\nc d,r,y\na d,r,{last}\n")
        found.add(digest(one("world=triples", f"world.path={facts}")))
        assert digest(one("world=triples", f"world.path={tmp_path}/./facts.csv")) in found
    assert len(found) == 2


def test_finished_run_is_not_run_again_and_failed_one_is(tmp_path: Path) -> None:
    config = small(tmp_path)
    first = run(config)
    written = record_path(config).stat().st_mtime_ns
    assert run(config) == first and record_path(config).stat().st_mtime_ns == written
    broken = json.loads(record_path(config).read_text()) | {"status": "failed"}
    record_path(config).write_text(json.dumps(with_checksum({key: broken[key] for key in broken if key != "checksum"})))
    assert run(config)["status"] == "ok"


def test_a_mistake_before_training_is_a_record_too(tmp_path: Path) -> None:
    config = small(tmp_path, "model.ffn.num_keys=1000000", "match.reference=null")
    with pytest.raises(ValueError, match="value tables of"):
        run(config)
    record = read_record(record_path(config))
    assert record is not None and record["status"] == "failed" and "value tables of" in record["error"]


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ValueError, match="results=") as caught:
        run(small(blocked))
    assert "\n" not in str(caught.value)


CANNOT = ["trainer.precision=16-mixed", "trainer.devices=2", "+trainer.max_epochs=3", "trainer=gpu"]
CANNOT += ["+trainer.strategy=ddp", "trainer.devices=[0,1]", "+trainer.num_nodes=2"]
CANNOT += ["trainer.accelerator=tpu", "+trainer.benchmark=hello"]
CANNOT += ["+trainer.accumulate_grad_batches=4", "+trainer.gradient_clip_val=1.0"]
CUT_SHORT = ["+trainer.max_steps=3", "+trainer.max_time='00:00:00:01'", "+trainer.fast_dev_run=true"]


@pytest.mark.parametrize("change", CANNOT + CUT_SHORT)
def test_what_the_trainer_cannot_do_is_one_line(change: str, tmp_path: Path) -> None:
    if change == "trainer=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="trainer") as caught:
        run(small(tmp_path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("arm", CHOICES["ffn"])
def test_every_arm_learns_a_small_world_by_heart(arm: str, tmp_path: Path) -> None:
    """500 readings, 60 exposures: a broken gradient, mask or probe shows here."""
    overrides = [f"arm={arm}", "world.num_subjects=500", "training.exposures=60"]
    record = run(unasked(*overrides, "training.batch_tokens=256", "logger=none", f"results={tmp_path}"))
    assert record["recall"]["exact"] > 0.9
    assert record["recall"]["shuffled"] < 0.1


@pytest.mark.slow
def test_sentences_never_trained_on_are_answered(tmp_path: Path) -> None:
    """100 people told in prose: a fact learnt in some phrasings is extracted in another; strangers' are not."""
    world = ["world=biographies", "world.text=prose", "world.num_people=100", "world.name_parts=[10,10,10]"]
    world += ["world.cardinalities=[16,16]", "training.exposures=200", "training.batch_tokens=256", "optim.lr=6e-3"]
    recall = run(unasked(*world, "arm=dense", "logger=none", f"results={tmp_path}"))["recall"]
    assert recall["exact"] > 0.95 and recall["held_out"] > 0.8
    assert recall["shuffled"] < 0.2 and recall["unknown"]["auroc"] > 0.8
