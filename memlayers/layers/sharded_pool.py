"""A value table that is larger than one device: each of N processes holds d / N of its columns.

Memory Layers at Scale, section 3.2. Each process reads its columns for the tokens of all processes, and sends every
process the results for its tokens:

    slots, weights (t, r) --gather--> (N t, r) --read local columns--> (N t, d / N) --exchange--> (t, d)

Message sizes do not depend on what is read, and a slot that all tokens read is the same work for every process: with
rows instead of columns, both would depend on the data (scripts/benches/shards.py measures both).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from memlayers.layers.pool import MemoryPool


class ShardedPool(MemoryPool):
    """This process's columns of a table `d_value` wide; the other processes of the default group hold the rest.

    All processes call `forward` together, with the same number of tokens. The gradient of the local columns is summed
    over the tokens of all processes; that of the weights is for the local tokens, over all columns.
    Raises ValueError where the number of processes does not divide d_value.
    """

    def __init__(self, num_slots: int, d_value: int, **settings: Any):
        self.ranks = dist.get_world_size()
        check_columns(d_value, self.ranks)
        super().__init__(num_slots, d_value // self.ranks, **settings)
        self.d_value = d_value

    def sums(self, slots: Tensor, weights: Tensor) -> Tensor:
        """slots (t, r) and weights (t, r) of this process -> weighted sums of whole rows (t, d_value)."""
        all_reads = all_gather(slots, self.ranks), _Gather.apply(weights, self.ranks)
        return _Exchange.apply(super().sums(*all_reads), self.ranks)

    def rows(self, slots: Tensor) -> Tensor:
        """slots (...) -> whole rows (..., d_value)."""
        return self(slots[..., None], torch.ones(*slots.shape, 1, device=slots.device))

    @torch.no_grad()
    def draw(self, std: float, generator: torch.Generator, rows: int = 4096) -> None:
        """Fill the columns with those of a whole table drawn from `generator`, holding `rows` of its rows at a time."""
        width = self.values.shape[1]
        first = width * dist.get_rank()
        for part in self.values.split(rows):
            whole = torch.empty(len(part), self.d_value).normal_(std=std, generator=generator)
            part.copy_(whole[:, first : first + width])


def check_columns(d_value: int, ranks: int) -> None:
    """Raises ValueError unless `ranks` divides d_value and leaves each process two columns or more."""
    if d_value % ranks or d_value == ranks:
        raise ValueError(
            f"shard_tables=true: a table {d_value} wide cannot be cut into columns for {ranks} processes; "
            "accepted: a number of processes that divides the width, and two columns or more each"
        )


def all_gather(local: Tensor, ranks: int) -> Tensor:
    """(t, ...) of each process -> (N t, ...) of all, in the order of ranks."""
    parts = [torch.empty_like(local) for _ in range(ranks)]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """all_gather with a gradient: the sum over processes of their gradients of the local part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return all_gather(local, ranks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        parts = torch.empty_like(grad)
        dist.all_to_all_single(parts, grad.contiguous())
        return parts.unflatten(0, (ctx.ranks, -1)).sum(0), None


class _Exchange(torch.autograd.Function):
    """(N t, d / N), local columns for all tokens -> (t, d), all columns for the local tokens."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        parts = torch.empty_like(columns)
        dist.all_to_all_single(parts, columns.contiguous())
        return parts.unflatten(0, (ranks, -1)).movedim(0, 1).flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        parts = grad.unflatten(1, (ctx.ranks, -1)).movedim(1, 0).flatten(0, 1).contiguous()
        columns = torch.empty_like(parts)
        dist.all_to_all_single(columns, parts)
        return columns, None


def wire_bytes(tokens: int, reads: int, d_value: int, ranks: int) -> float:
    """Bytes that one process sends in a step, forward and backward, with `tokens` local tokens.

    Slots (8 bytes) and weights (4) go to all others; sums of columns, their gradients and the gradients of weights are
    exchanged. Not counted: what an update rule exchanges for its state, a number for each row that was read.
    """
    others = ranks - 1
    return tokens * others * (reads * (8 + 4 + 4) + 2 * 4 * d_value / ranks)
