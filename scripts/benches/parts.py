"""What each function behind `kernels=` takes, the reference beside the one in C, also on values in bfloat16."""

from collections.abc import Callable
from typing import Any

import torch
from benches.clock import Side, take_turns
from torch import nn

from memlayers.kernels import Kernels, choose
from memlayers.layers.pool import MemoryPool
from memlayers.optim import LazyAdam, RowwiseAdagrad

# name: keys a half, half-key width, tokens, heads, k, value width
SHAPES = {"the study's": (128, 8, 1024, 4, 8, 32), "larger": (512, 32, 2048, 4, 32, 128)}
HOW = {
    "reference": ("reference", torch.float32),
    "in C": ("auto", torch.float32),
    "in C, values in bfloat16": ("auto", torch.bfloat16),
}


def sides(shape: tuple[int, ...], kernels: Kernels, dtype: torch.dtype) -> dict[str, Side]:
    """Forward and backward of each function, separately, and steps of two update rules on the resulting gradient."""
    n, c, tokens, heads, k, width = shape
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(tokens, heads, 2, c, generator=generator).requires_grad_()
    keys = torch.randn(heads, 2, n, c, generator=generator).requires_grad_()
    values = nn.Parameter(torch.randn(n * n, width, generator=generator).to(dtype))
    gains = [torch.ones(c, requires_grad=True) for _ in ("queries", "keys")]
    slots, found = kernels.look_up(query, keys, gains, k)
    weights = found.detach().flatten(1).requires_grad_()
    read = kernels.weighted_read(values, slots.flatten(1), weights)
    to_found, to_read = torch.randn_like(found), torch.randn_like(read)
    table = nn.Parameter(values.detach().clone())  # a step changes it in place, and backward still needs the other
    table.grad = torch.autograd.grad(read, values, to_read, retain_graph=True)[0]
    adam = LazyAdam(lr=1e-3).build([table], kernels)
    adagrad = RowwiseAdagrad(lr=1e-3).build([table], kernels)
    pool = MemoryPool(n * n, width, dtype=dtype, read=kernels.weighted_read)
    pool.values.data.copy_(values)
    within = RowwiseAdagrad(lr=1e-3).build([pool.values], kernels)
    pool.update = within.update_of(pool.values)

    def in_one_pass() -> None:
        pool(slots.flatten(1), weights).backward(to_read)
        within.step()  # of what backward has left to it
        within.zero_grad()

    def back(output: torch.Tensor, inputs: tuple[torch.Tensor, ...], upstream: torch.Tensor) -> Callable[[], None]:
        return lambda: void(torch.autograd.grad(output, inputs, upstream, retain_graph=True))

    return {
        "look-up, forward": lambda: void(kernels.look_up(query, keys, gains, k)),
        "look-up, backward": back(found, (query, keys, *gains), to_found),
        "read, forward": lambda: void(kernels.weighted_read(values, slots.flatten(1), weights)),
        "read, backward": back(read, (values, weights), to_read),
        "update, lazy Adam": lambda: void(adam.step()),
        "update, row-wise Adagrad": lambda: void(adagrad.step()),
        "read, both ways, with row-wise Adagrad": in_one_pass,
    }


def void(_: object) -> None:
    """Discard a result, as a side returns nothing."""


def measure(rounds: int, shapes: tuple[str, ...] = tuple(SHAPES)) -> dict[str, Any]:
    by_shape = {}
    for name in shapes:
        all_sides = {how: sides(SHAPES[name], choose(kernels), dtype) for how, (kernels, dtype) in HOW.items()}
        times = take_turns(
            {f"{how}: {part}": run for how, own_sides in all_sides.items() for part, run in own_sides.items()}, rounds
        )
        by_shape[name] = {part: {how: times[f"{how}: {part}"] for how in all_sides} for part in all_sides["reference"]}
    return by_shape


def targets(_: dict[str, Any]) -> list[tuple[str, float, float]]:
    """No targets: these are the parts of other measurements."""
    return []
