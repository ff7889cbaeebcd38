"""One run from its configuration to its record: what it says, whichever way the run ends."""

import math

import pytest
from stubs import tiny

from memlayers import __version__, kernels
from memlayers.config import ModelConfig, OptimConfig, RunConfig
from memlayers.config.digest import NAMES_AND_PLACES, digest, settings
from memlayers.layers import Dense, Memory, NGram, layer_name
from memlayers.optim import DenseAdamW, RowwiseAdagrad
from memlayers.training import run as run_module
from memlayers.training.provenance import machine
from memlayers.training.record import SCHEMA, finished, read_record, record_path
from memlayers.training.run import run


def trains(monkeypatch, train) -> None:
    monkeypatch.setattr(run_module, "train", train)


# --------------------------------------------------------------------------- its record


LEFT_OUT = (*NAMES_AND_PLACES, "kernels", "seed", "progress")  # of the configuration in a record


def test_a_failed_run_is_recorded_tried_again_and_then_left_alone(tmp_path, monkeypatch):
    config = tiny(tmp_path / "results", seed=3)
    attempts = []

    def train(*arguments):
        attempts.append(read_record(record_path(config)))
        if len(attempts) == 1:
            raise FloatingPointError("the loss is nan at step 7")
        return {"recall": {"exact": 0.5}, "kernels": {"look_up": "native"}}

    trains(monkeypatch, train)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 7"):
        run(config)
    failed = read_record(record_path(config))
    assert failed is not None and failed["status"] == "failed" and finished(config) is None
    assert failed["error"] == "FloatingPointError: the loss is nan at step 7" and "recall" not in failed
    ended = run(config)
    assert attempts == [None, failed] and ended == finished(config) == read_record(record_path(config))
    assert ended["status"] == "ok" and ended["error"] is None and ended["recall"] == {"exact": 0.5}
    assert ended["machine"]["kernels"] == {"look_up": "native"} and "kernels" not in ended
    assert run(config) == ended and len(attempts) == 2
    assert [file.name for file in record_path(config).parent.iterdir()] == [record_path(config).name]


def test_a_record_says_what_was_run_with_what_and_where(tmp_path, monkeypatch):
    trains(monkeypatch, lambda *arguments: {"kernels": {}})
    axes = {"seed": 5, "model.blocks": [0]}
    config = tiny(tmp_path, study="mine", arm="dense", seed=5, axes=axes)
    record = run(config)
    named = {"schema": SCHEMA, "study": "mine", "arm": "dense", "world": "bio", "seed": 5, "axes": axes}
    named |= {"digest": digest(config), "status": "ok", "error": None}
    assert {name: record[name] for name in named} == named
    whole = {key: value for key, value in settings(config).items() if key not in LEFT_OUT}
    assert record["config"] == whole and whole["model"]["depth"] == 2, "also what is as in the defaults"
    assert record["machine"] == machine(config.threads) | {"kernels": {}}
    assert record["code"]["version"] == __version__


def test_a_run_that_is_interrupted_or_ends_in_nan_leaves_no_good_record(tmp_path, monkeypatch):
    config = tiny(tmp_path)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    trains(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert list(record_path(config).parent.iterdir()) == []
    trains(monkeypatch, lambda *arguments: {"recall": {"exact": float("nan")}, "kernels": {}})
    with pytest.raises(ValueError):
        run(config)
    assert finished(config) is None


DIVERGING = {  # the loss is not finite, or what the last step leaves
    "the loss is not finite from step ": {"lr": 1e30, "steps": 40},
    "the model is not finite after its last step": {"lr": 1e38, "steps": 1},
}


@pytest.mark.parametrize("said", DIVERGING)
@pytest.mark.parametrize("layer", [Dense(), Memory(num_keys=8), NGram(num_slots=64)], ids=layer_name)
def test_divergence_is_a_failed_record_with_its_error(tmp_path, layer, said):
    optim = OptimConfig(lr=DIVERGING[said]["lr"], clip=None, values=RowwiseAdagrad())
    optim.schedule.warmup = 0.0
    config = tiny(tmp_path, DIVERGING[said]["steps"], optim=optim, model=ModelConfig(ffn=layer))
    with pytest.raises(FloatingPointError, match=said):
        run(config)
    record = read_record(record_path(config))
    assert record is not None and record["status"] == "failed" and "recall" not in record
    assert record["error"].startswith(f"Diverged: {said}") and record["error"].endswith("optim.values.lr")
    found = record["diverged"]
    assert 0 <= found["step"] < DIVERGING[said]["steps"] and found["checkpoint"] is None
    assert sum(role["not_finite"] for role in found["norms"].values()) > 0 or said.startswith("the loss")
    assert all(math.isfinite(role["norm"]) for role in found["norms"].values()) and "matrix" in found["norms"]
    assert finished(config) is None and [file.suffix for file in record_path(config).parent.iterdir()] == [".json"]


# --------------------------------------------------------------------------- what ran


def kernels_of(config: RunConfig) -> dict[str, str]:
    return run(config)["machine"]["kernels"]


def with_memory(folder, **changes) -> RunConfig:
    model = ModelConfig(ffn=Memory(num_keys=8))
    return tiny(folder, model=model, optim=OptimConfig(values=RowwiseAdagrad()), **changes)


def test_the_record_says_which_kernels_ran(tmp_path, compiled):
    assert kernels_of(with_memory(tmp_path)) == {"look_up": "native", "weighted_read": "native"}
    assert kernels_of(with_memory(tmp_path / "reference", kernels="reference")) == {}
    assert kernels_of(tiny(tmp_path / "dense")) == {}


def test_the_record_says_reference_where_every_call_fell_back(tmp_path, compiled):
    """Queries in bfloat16 are none that the search in C takes."""
    kernels._notice.cache_clear()
    precision = {"accelerator": "cpu", "devices": 1, "precision": "bf16-true"}
    with pytest.warns(UserWarning, match=r"kernels=auto: query of torch\.bfloat16 .*; taking the reference"):
        found = kernels_of(with_memory(tmp_path, trainer=precision))
    assert found["look_up"] == "reference"
    with pytest.raises(ValueError, match=r"kernels=native: query of torch\.bfloat16"):
        run(with_memory(tmp_path / "native", trainer=precision, kernels="native"))


def test_the_record_says_nothing_of_kernels_that_cannot_be_built(tmp_path, monkeypatch, fresh):
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(UserWarning, match="taking the reference"):
        assert kernels_of(with_memory(tmp_path)) == {}


def test_reads_with_a_dense_gradient_are_those_of_the_reference(tmp_path, compiled):
    config = with_memory(tmp_path)
    config.optim.values = DenseAdamW()
    assert kernels_of(config)["weighted_read"] == "reference"
