"""Rows that backward updates while it visits them: the numbers of a step after it, and no gradient in between."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from memlayers import kernels
from memlayers.config import MemoryConfig, ModelConfig, OptimConfig, RoleConfig, ValuesConfig
from memlayers.layers.pool import MemoryPool
from memlayers.optim.rows import LazySGD, OnePass, RowwiseAdagrad
from memlayers.model import build_model
from memlayers.optim.groups import build_optimizers, stepping_in_backward

ROWS = 30


@pytest.fixture(autouse=True)
def compiled():
    try:
        kernels.choose("native")
    except ValueError as error:
        pytest.skip(str(error))


def table(rule: str, choice: str, width: int, dtype: torch.dtype = torch.float32) -> tuple[MemoryPool, OnePass]:
    chosen = kernels.choose(choice)
    pool = MemoryPool(ROWS, width, dtype=dtype, read=chosen.weighted_read)
    with torch.no_grad():
        pool.values.copy_(torch.randn(ROWS, width, generator=torch.Generator().manual_seed(0)))
    make = {"rowwise_adagrad": lambda: RowwiseAdagrad([pool.values], 0.3, 1e-8, chosen)}
    make["sgd"] = lambda: LazySGD([pool.values], 0.3, chosen)
    return pool, make[rule]()


def learn(pool: MemoryPool, optimizer: OnePass, steps: int, first: int = 0) -> list[Tensor]:
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


def numbers(pool: MemoryPool, optimizer: OnePass) -> list[Tensor]:
    state = optimizer.state_dict()["state"][0]
    return [pool.values.detach(), *(torch.as_tensor(state[name]) for name in sorted(state))]


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "sgd"])
@pytest.mark.parametrize("width", [1, 20, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fifty_steps_in_backward_are_fifty_steps_after_it_digit_for_digit(threads, rule, width, dtype):
    after, within = (table(rule, "native", width, dtype) for _ in range(2))
    within[1].step_in_backward(within[0])
    wanted, got = learn(*after, 50), learn(*within, 50)
    for mine, theirs in zip([*got, *numbers(*within)], [*wanted, *numbers(*after)], strict=True):
        assert mine.dtype == theirs.dtype and mine.equal(theirs)


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "sgd"])
def test_they_are_the_references_whose_backward_leaves_them_to_the_step(rule):
    mine, reference = table(rule, "native", 12), table(rule, "reference", 12)
    for pool, optimizer in (mine, reference):
        optimizer.step_in_backward(pool)
    wanted, got = learn(*reference, 20), learn(*mine, 20)
    for one, other in zip([*got, *numbers(*mine)], [*wanted, *numbers(*reference)], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_gradient_of_rows_is_made_and_the_step_that_follows_does_nothing():
    pool, optimizer = table("rowwise_adagrad", "native", 8)
    optimizer.step_in_backward(pool)
    slots, before = torch.tensor([[3, 7, 3]]), pool.values.detach().clone()
    pool(slots, torch.ones(1, 3)).sum().backward()
    moved = pool.values.detach().clone()
    assert pool.values.grad is None and (moved != before).any(dim=1).nonzero()[:, 0].tolist() == [3, 7]
    optimizer.step()
    assert pool.values.equal(moved) and optimizer.state[pool.values]["step"] == 1


def test_a_table_of_another_optimizer_is_refused_and_a_reference_leaves_the_pools_own_read():
    _, optimizer = table("rowwise_adagrad", "native", 8)
    other, _ = table("rowwise_adagrad", "native", 8)
    read = other.read
    with pytest.raises(ValueError, match=r"^a table of \(30, 8\) is not among the parameters of this RowwiseAdagrad$"):
        optimizer.step_in_backward(other)
    assert not optimizer.state and other.read == read
    RowwiseAdagrad([other.values], 0.3, 1e-8).step_in_backward(other)
    assert other.read == read


def test_rows_of_a_table_that_does_not_learn_stay_where_they_are():
    pool, optimizer = table("sgd", "native", 8)
    optimizer.step_in_backward(pool)
    before, weights = pool.values.detach().clone(), torch.ones(2, 3, requires_grad=True)
    pool.values.requires_grad_(False)
    pool(torch.randint(ROWS, (2, 3)), weights).sum().backward()
    assert pool.values.equal(before) and weights.grad is not None


@pytest.mark.parametrize("rule", ["rowwise_adagrad", "sgd"])
def test_two_reads_of_one_table_are_refused_by_the_second_backward(rule):
    pool, optimizer = table(rule, "native", 8)
    optimizer.step_in_backward(pool)
    slots, weights = torch.randint(ROWS, (4, 3)), torch.rand(4, 3, requires_grad=True)
    both = pool(slots, weights) + pool(slots, weights)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        both.sum().backward()


def test_a_resumed_rule_goes_on_in_backward_with_the_saved_rate():
    straight, first = (table("rowwise_adagrad", "native", 8) for _ in range(2))
    resumed = table("rowwise_adagrad", "native", 8)
    resumed[1].param_groups[0]["lr"] = 7.0
    for pool, optimizer in (straight, first, resumed):
        optimizer.step_in_backward(pool)
    learn(*straight, 20)
    learn(*first, 10)
    saved = copy.deepcopy(first[1].state_dict())
    saved["param_groups"][0]["lr"] = saved["param_groups"][0]["initial_lr"]  # learn's schedule begins with it
    resumed[0].load_state_dict(first[0].state_dict())
    resumed[1].load_state_dict(saved)
    learn(*resumed, 10, first=10)
    for mine, theirs in zip(numbers(*resumed), numbers(*straight), strict=True):
        assert mine.equal(theirs)


ROLES = {role: RoleConfig() for role in ("matrix", "output", "vector", "embedding", "memory_key")}


@pytest.mark.parametrize(
    ("name", "blocks", "rule", "clip", "within"),
    [
        ("memory", "all", "rowwise_adagrad", None, True),
        ("memory", [1], "sgd", None, True),
        ("memory_plus", [1], "sgd", None, True),
        ("memory_plus", "all", "sgd", None, False),  # one pool, two readers
        ("memory", [1], "rowwise_adam", None, False),
        ("memory", [1], "rowwise_adagrad", 1.0, False),
    ],
)
def test_a_model_steps_in_backward_where_it_can_and_learns_the_same(name, blocks, rule, clip, within):
    config = ModelConfig(MemoryConfig(name=name, num_keys=12, heads=2, topk=3, d_key=8), blocks=blocks)
    optim = OptimConfig(roles=ROLES, clip_values=clip, values=ValuesConfig(rule, lr=0.1))
    ended = []
    for context in (stepping_in_backward, lambda *_: nullcontext()):
        model = build_model(config, 50, torch.Generator().manual_seed(0), kernels.choose("native"))
        optimizers = build_optimizers(model, optim, kernels.choose("native"))
        with context(model, optimizers, optim):
            for step in range(10):
                model((torch.arange(40).view(5, 8) + step) % 50).logits.square().mean().backward()
                no_gradient = all(pool.values.grad is None for pool in model.pools)
                assert no_gradient == (within and context is stepping_in_backward)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        model(torch.arange(8).view(1, 8)).logits.sum().backward()
        assert all(pool.values.grad is not None for pool in model.pools)  # it ends with the context
        ended.append([parameter.detach() for parameter in model.parameters()])
    for mine, theirs in zip(*ended, strict=True):
        assert mine.equal(theirs)
