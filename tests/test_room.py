"""Value tables that do not fit into memory are refused before anything is allocated."""

import os
import re

import pytest
import torch
from contract import NUM_TOKENS, RULES

from memlayers import cost as cost_module
from memlayers.config import ModelConfig
from memlayers.cost import available_memory, below_limits, refuse_too_large
from memlayers.kernels import REFERENCE
from memlayers.layers import Memory, NGram
from memlayers.model import build_model, parameters_with_roles
from memlayers.optim import SGD, DenseAdamW

EVERY = pytest.mark.parametrize("rule", [*RULES.values(), DenseAdamW()], ids=[*RULES, "adamw"])


def others(config: ModelConfig) -> int:
    """Bytes of the parameters beside tables, their gradients and two moments each."""
    model = build_model(config, NUM_TOKENS, torch.Generator())
    return sum(4 * 4 * one.numel() for _, role, one in parameters_with_roles(model) if role != "memory_value")


@EVERY
def test_tables_that_do_not_fit_are_refused_with_their_sizes(rule, monkeypatch):
    """What fits by the message fits, and one row more does not."""
    monkeypatch.setattr(cost_module, "available_memory", lambda: 10 * 2**20)
    tables = NGram(num_slots=4_000_000)
    with pytest.raises(ValueError, match=r"^model: value tables of 0.5 GiB and optimizer state of") as caught:
        refuse_too_large(ModelConfig(tables), NUM_TOKENS, rule)
    assert "0.0 GiB that are available" in str(caught.value) and "\n" not in str(caught.value)
    most = int(re.search(r"up to ([\d,]+) rows in all instead of 4,000,000", str(caught.value))[1].replace(",", ""))
    refuse_too_large(ModelConfig(NGram(num_slots=most)), NUM_TOKENS, rule)
    with pytest.raises(ValueError):
        refuse_too_large(ModelConfig(NGram(num_slots=most + 1)), NUM_TOKENS, rule)
    refuse_too_large(ModelConfig(), NUM_TOKENS, rule)


def test_a_shared_table_is_counted_once_and_own_ones_each(monkeypatch):
    one = 64**2 * 32 * 4
    for pool, tables in (("shared", 1), ("own", 3)):
        config = ModelConfig(Memory(num_keys=64, pool=pool), "all", depth=3)
        room = tables * one + others(config)
        for free, fits in ((room, True), (room - 1, False)):
            monkeypatch.setattr(cost_module, "available_memory", lambda free=free: free)
            try:
                refuse_too_large(config, NUM_TOKENS, SGD())
                assert fits
            except ValueError:
                assert not fits


def test_a_model_without_tables_counts_too(monkeypatch):
    config = ModelConfig(d_model=128)
    monkeypatch.setattr(cost_module, "available_memory", lambda: others(config))
    refuse_too_large(config, NUM_TOKENS, SGD())
    with pytest.raises(ValueError, match=r"^model: [\d,]+ parameters beside value tables, with gradients .* more than"):
        refuse_too_large(config, NUM_TOKENS, SGD(), copies=2)


@EVERY
def test_the_state_that_is_counted_is_the_state_that_is_made(rule):
    values = torch.nn.Parameter(torch.zeros(50, 32))
    optimizer = rule.build([values], REFERENCE)
    values.grad = torch.ones_like(values) if not rule.sparse else torch.ones_like(values).to_sparse(1)
    optimizer.step()
    state = [one for one in optimizer.state[values].values() if isinstance(one, torch.Tensor) and one.ndim == 2]
    made = sum(one.numel() * one.element_size() for one in state)
    gradient = 0 if rule.sparse else values.numel() * 4
    assert made + gradient == len(values) * rule.state_bytes(32, 4)


def test_available_memory_is_some_and_no_more_than_there_is():
    assert 2**20 < available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_the_limits_of_all_groups_that_contain_the_process_count(tmp_path):
    """As in a Slurm job: the limit is on the job, above the group of its step, and the cache of files gives way."""
    step = tmp_path / "job_7/step_0/task_0"
    step.mkdir(parents=True)
    for folder, most in ((step, "max"), (tmp_path / "job_7", "1000"), (tmp_path, "5000")):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("700\n")
        (folder / "memory.stat").write_text("anon 600\nfile 100\n")
    assert list(below_limits(tmp_path, "job_7/step_0/task_0")) == [400, 4400]
    assert list(below_limits(tmp_path / "none", "")) == [4400]
