"""A run and what is around it: threads and malloc of the process, the device and what it cannot do."""

import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import Strategy
from omegaconf import OmegaConf
from stubs import tiny

from memlayers.config import ModelConfig, OptimConfig, RunConfig
from memlayers.layers import Memory, NGram
from memlayers.model import Transformer, build_model
from memlayers.optim import RowwiseAdagrad
from memlayers.recall.measure import measure
from memlayers.studies import cli
from memlayers.training import probe
from memlayers.training import run as run_module
from memlayers.training.plan import plan
from memlayers.training.record import read_record, record_path
from memlayers.training.run import refuse_device, run


def trains(monkeypatch, train) -> None:
    monkeypatch.setattr(run_module, "train", train)


def with_memory(folder, **changes) -> RunConfig:
    model = ModelConfig(ffn=Memory(num_keys=8))
    return tiny(folder, model=model, optim=OptimConfig(values=RowwiseAdagrad()), **changes)


# --------------------------------------------------------------------------- what is left as it was


@pytest.mark.parametrize("fails", [False, True])
def test_torch_has_as_many_threads_as_are_asked_for_while_it_trains_and_as_many_as_before_after(
    tmp_path, monkeypatch, threads, fails
):
    seen = []

    def train(*arguments) -> dict[str, Any]:
        seen.append(torch.get_num_threads())
        if fails:
            raise RuntimeError("out of memory")
        return {"kernels": {}}

    trains(monkeypatch, train)
    try:
        run(tiny(tmp_path, threads=3))
    except RuntimeError:
        assert fails
    assert seen == [3] and torch.get_num_threads() == threads


def test_malloc_is_told_nothing_but_by_commands_of_ours(tmp_path, monkeypatch):
    told, real = [], ctypes.CDLL

    class Libc:
        def __init__(self, name, *arguments, **settings):
            self.library = real(name, *arguments, **settings)

        def __getattr__(self, name):
            return (lambda *values: told.append(values)) if name == "mallopt" else getattr(self.library, name)

    monkeypatch.setattr(ctypes, "CDLL", lambda name, *rest, **more: (real if name else Libc)(name, *rest, **more))
    run(with_memory(tmp_path))
    assert not told
    monkeypatch.setattr(run_module, "run", lambda config: None)
    monkeypatch.setattr(cli, "to_run_config", lambda config, words: None)
    monkeypatch.setattr(cli.HydraConfig, "get", lambda: SimpleNamespace(overrides=SimpleNamespace(task=[])))
    cli.job(OmegaConf.create({"progress": "auto"}))
    assert len(told) == (2 if sys.platform == "linux" else 0)


# --------------------------------------------------------------------------- the device


def test_the_model_is_measured_where_it_was_trained_before_lightning_moves_it(tmp_path, monkeypatch):
    order, teardown = [], Strategy.teardown

    def measured(model, text, documents):
        order.append("measure")
        assert isinstance(model, Transformer) and documents == 2 * plan(config).batch_size
        return measure(model, text, documents)

    monkeypatch.setattr(probe, "measure", measured)
    monkeypatch.setattr(Strategy, "teardown", lambda self: order.append("teardown") or teardown(self))
    config = tiny(tmp_path)
    record = run(config)
    assert order == ["measure", "teardown"] and record["recall"]["num_facts"] == 40


def model_of(dtype: str, **places):
    layers = {place: layer(value_dtype=dtype) for place, layer in places.items()}
    return build_model(ModelConfig(**layers), num_tokens=8)


def refused(device: str, kernels: str, model) -> str:
    with pytest.raises(ValueError) as caught:
        refuse_device(device, kernels, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("places", [{"ffn": Memory}, {"ffn": NGram}, {"residual": NGram}], ids=str)
def test_what_a_gpu_cannot_do_is_refused(places):
    single, half = model_of("float32", **places), model_of("bfloat16", **places)
    for model in (single, half):
        for kernels in ("auto", "native", "reference", "triton"):
            refuse_device("cpu", kernels, model)
        said = "kernels=native is for the CPU, and the trainer is on a GPU; accepted: auto, reference, triton"
        assert refused("cuda", "native", model) == said
        refuse_device("cuda", "triton", model)
    for kernels in ("auto", "reference"):
        refuse_device("cuda", kernels, single)
        said = refused("cuda", kernels, half)
        assert "value_dtype=bfloat16" in said and said.endswith("accepted: kernels=triton, or value_dtype=float32")


def test_what_a_gpu_cannot_do_is_refused_before_training(tmp_path, monkeypatch, compiled):
    on_a_gpu = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda")))
    monkeypatch.setattr(run_module, "build_trainer", lambda *arguments: on_a_gpu)
    monkeypatch.setattr(run_module, "fit", lambda *arguments: pytest.fail("it trained"))
    config = tiny(tmp_path, kernels="native")
    with pytest.raises(ValueError, match="kernels=native is for the CPU"):
        run(config)
    assert read_record(record_path(config))["status"] == "failed"
