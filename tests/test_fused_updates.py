"""Rows that backward updates while it visits them: the numbers of a step after it, and no gradient in between."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from contract import CASES, FIRST, QUESTIONS, RULES, SMALL, TABLES
from stubs import seeded
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from memlayers import kernels
from memlayers.config import ModelConfig, OptimConfig
from memlayers.layers import Dense
from memlayers.layers.pool import MemoryPool
from memlayers.model import build_model
from memlayers.optim import build_optimizers, fused_updates
from memlayers.optim.rows import RowOptimizer

ROWS = 30
FUSED = [name for name, rule in RULES.items() if rule.fused_eps is not None]


@pytest.fixture(autouse=True)
def compiled():
    try:
        kernels.choose("native")
    except ValueError as error:
        pytest.skip(str(error))


def table(name: str, choice: str, width: int, dtype: torch.dtype = torch.float32) -> tuple[MemoryPool, RowOptimizer]:
    chosen = kernels.choose(choice)
    pool = MemoryPool(ROWS, width, dtype=dtype, read=chosen.weighted_read)
    with torch.no_grad():
        pool.values.copy_(torch.randn(ROWS, width, generator=seeded()))
    return pool, replace(RULES[name], lr=0.3).build([pool.values], chosen)


def fuse(pool: MemoryPool, optimizer: RowOptimizer) -> None:
    pool.update = optimizer.update_of(pool.values)
    assert pool.update is not None


def learn(pool: MemoryPool, optimizer: RowOptimizer, steps: int, first: int = 0) -> list[Tensor]:
    """Steps at a falling rate, on none to seven tokens, with rows twice in a bag; the gradients of the weights."""
    width, found = pool.values.shape[1], []
    schedule = LambdaLR(optimizer, lambda step: 0.9 ** (first + step))
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        slots = torch.randint(ROWS, (step % 8, 5), generator=generator)
        weights = torch.rand(step % 8, 5, generator=generator).requires_grad_()
        read = pool(slots, weights)
        read.backward(torch.randn(step % 8, width, generator=generator))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        found.append(weights.grad)
    return found


def numbers(pool: MemoryPool, optimizer: RowOptimizer) -> list[Tensor]:
    state = optimizer.state_dict()["state"][0]
    return [pool.values.detach(), *(torch.as_tensor(state[name]) for name in sorted(state))]


@pytest.mark.parametrize("rule", FUSED)
@pytest.mark.parametrize("width", [1, 20, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fifty_steps_in_backward_are_fifty_steps_after_it_digit_for_digit(threads, rule, width, dtype):
    after, within = (table(rule, "native", width, dtype) for _ in range(2))
    fuse(*within)
    wanted, got = learn(*after, 50), learn(*within, 50)
    for mine, theirs in zip([*got, *numbers(*within)], [*wanted, *numbers(*after)], strict=True):
        assert mine.dtype == theirs.dtype and mine.equal(theirs)


@pytest.mark.parametrize("rule", FUSED)
def test_they_are_the_references_whose_backward_leaves_them_to_the_step(rule):
    mine, reference = table(rule, "native", 12), table(rule, "reference", 12)
    for pool, optimizer in (mine, reference):
        fuse(pool, optimizer)
    wanted, got = learn(*reference, 20), learn(*mine, 20)
    for one, other in zip([*got, *numbers(*mine)], [*wanted, *numbers(*reference)], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_gradient_of_rows_is_made_and_the_step_that_follows_does_nothing():
    pool, optimizer = table("rowwise_adagrad", "native", 8)
    fuse(pool, optimizer)
    slots, before = torch.tensor([[3, 7, 3]]), pool.values.detach().clone()
    pool(slots, torch.ones(1, 3)).sum().backward()
    moved = pool.values.detach().clone()
    assert pool.values.grad is None and (moved != before).any(dim=1).nonzero()[:, 0].tolist() == [3, 7]
    optimizer.step()
    assert pool.values.equal(moved) and optimizer.state[pool.values]["step"] == 1


def test_a_table_of_another_optimizer_is_refused_and_leaves_no_trace():
    _, optimizer = table("rowwise_adagrad", "native", 8)
    other, _ = table("rowwise_adagrad", "native", 8)
    with pytest.raises(ValueError, match=r"^a table of \(30, 8\) is not among the parameters of this optimizer$"):
        optimizer.update_of(other.values)
    assert not optimizer.state and other.update is None


def test_rows_of_a_table_that_does_not_learn_stay_where_they_are():
    pool, optimizer = table("sgd", "native", 8)
    fuse(pool, optimizer)
    before, weights = pool.values.detach().clone(), torch.ones(2, 3, requires_grad=True)
    pool.values.requires_grad_(False)
    pool(torch.randint(ROWS, (2, 3)), weights).sum().backward()
    assert pool.values.equal(before) and weights.grad is not None


@pytest.mark.parametrize("rule", FUSED)
def test_two_reads_of_one_table_are_refused_by_the_second_backward(rule):
    pool, optimizer = table(rule, "native", 8)
    fuse(pool, optimizer)
    slots, weights = torch.randint(ROWS, (4, 3)), torch.rand(4, 3, requires_grad=True)
    both = pool(slots, weights) + pool(slots, weights)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        both.sum().backward()


def test_a_resumed_rule_goes_on_in_backward_with_the_saved_rate():
    straight, first = (table("rowwise_adagrad", "native", 8) for _ in range(2))
    resumed = table("rowwise_adagrad", "native", 8)
    resumed[1].param_groups[0]["lr"] = 7.0
    for pool, optimizer in (straight, first, resumed):
        fuse(pool, optimizer)
    learn(*straight, 20)
    learn(*first, 10)
    saved = copy.deepcopy(first[1].state_dict())
    saved["param_groups"][0]["lr"] = saved["param_groups"][0]["initial_lr"]  # learn's schedule begins with it
    resumed[0].load_state_dict(first[0].state_dict())
    resumed[1].load_state_dict(saved)
    learn(*resumed, 10, first=10)
    for mine, theirs in zip(numbers(*resumed), numbers(*straight), strict=True):
        assert mine.equal(theirs)


NOT_ADDED_UP = ("Peer own", "Stem own", "PLE own", "UltraMemV2 own")
ADDED_UP = [case for case in FIRST if case in TABLES and case not in NOT_ADDED_UP]
SHARED, GATED = replace(SMALL, pool="shared"), replace(SMALL, pool="shared", gate=True)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("where", "clip", "alone"),
    [
        ({"ffn": SMALL, "blocks": "all"}, None, True),
        ({"ffn": SMALL, "blocks": [1], "placement": "add"}, None, True),
        ({"ffn": GATED, "blocks": [1]}, None, True),
        ({"ffn": GATED, "blocks": "all"}, None, False),  # one pool, two readers
        ({"ffn": SMALL, "blocks": [1]}, 1.0, False),
        ({"ffn": SMALL, "blocks": [1], "loops": 2}, None, False),  # one reader, twice
        *(({"residual": CASES[case], "values": CASES[case]}, None, True) for case in ADDED_UP),
        *(({"residual": CASES[case]}, None, False) for case in NOT_ADDED_UP),
        ({"residual": SHARED, "extra_blocks": [0]}, None, True),
        ({"residual": SHARED, "values": GATED, "extra_blocks": [0]}, None, False),  # one block, two places
    ],
)
def test_a_model_moves_rows_in_backward_where_it_can_and_learns_the_same(name, where, clip, alone):
    config, chosen = ModelConfig(**{"ffn": Dense()} | where), kernels.choose("native")
    optim, ended = OptimConfig(clip_values=clip, values=RULES[name]), []
    for context in (fused_updates, lambda *_: nullcontext()):
        model = build_model(config, 50, seeded(), chosen, questions=QUESTIONS)
        optimizers = build_optimizers(model, optim, chosen)
        with context(model, optimizers, optim):
            for step in range(10):
                model((torch.arange(40).view(5, 8) + step) % 50).logits.square().mean().backward()
                no_gradient = all(pool.values.grad is None for pool in model.pools)
                assert no_gradient == (alone and name in FUSED and context is fused_updates)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        assert all(pool.update is None for pool in model.pools)
        model(torch.arange(8).view(1, 8)).logits.sum().backward()
        assert all(pool.values.grad is not None for pool in model.pools)  # it ends with the context
        ended.append([parameter.detach() for parameter in model.parameters()])
    for mine, theirs in zip(*ended, strict=True):
        assert mine.equal(theirs)


def test_of_two_pools_the_one_with_two_readers_alone_is_left_to_the_step():
    config = ModelConfig(SHARED, "all", residual=SMALL)
    model, optim = build_model(config, 50, seeded()), OptimConfig(values=RULES["sgd"])
    shared = model.blocks[0].ffn.pool
    with fused_updates(model, build_optimizers(model, optim), optim):
        assert [pool.update is None for pool in model.pools] == [pool is shared for pool in model.pools]
        assert len(model.pools) == 3


def test_a_frozen_table_is_left_alone():
    model, optim = build_model(ModelConfig(SMALL), 50, seeded()), OptimConfig(values=RULES["sgd"])
    model.pools[0].values.requires_grad_(False)
    with fused_updates(model, build_optimizers(model, optim), optim):
        assert model.pools[0].update is None


def test_it_ends_with_an_error_too():
    model, optim = build_model(ModelConfig(SMALL), 50, seeded()), OptimConfig(values=RULES["sgd"])
    with pytest.raises(KeyError), fused_updates(model, build_optimizers(model, optim), optim):
        assert model.pools[0].update is not None
        raise KeyError
    assert model.pools[0].update is None
