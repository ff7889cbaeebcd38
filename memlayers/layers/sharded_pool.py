"""A value table that is larger than one device: each of N processes holds d / N of its columns.

Memory Layers at Scale, section 3.2. Every process reads for the tokens of all, from its columns, and hands each
process what belongs to its tokens:

    slots, weights (t, r) --gather--> (N t, r) --read own columns--> (N t, d / N) --exchange--> (t, d)

Messages have the same size whatever is read, and a slot that everybody reads is no more work for one process than for
another: with rows instead of columns both would depend on the data (scripts/benches/shards.py measures the two).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from memlayers.layers.pool import MemoryPool


class ShardedPool(MemoryPool):
    """The columns of this process of a table of `d_value`; all processes of the default group hold the others.

    All processes call `forward` together, with as many tokens each. The gradient of the table is the sum over the
    tokens of all of them, of its own columns; that of the weights is complete, and of its own tokens.
    Raises ValueError where the number of processes does not divide d_value.
    """

    def __init__(self, num_slots: int, d_value: int, **settings: Any):
        self.ranks = dist.get_world_size()
        refuse_columns(d_value, self.ranks)
        super().__init__(num_slots, d_value // self.ranks, **settings)
        self.d_value = d_value

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:
        """slots (t, r) and weights (t, r) of this process -> weighted sums of whole rows (t, d_value)."""
        if self.is_silent:
            return weights.new_zeros(len(slots), self.d_value)
        of_all = gathered(slots, self.ranks), _Gather.apply(weights, self.ranks)
        columns = self.read(self.values, *of_all, sparse=self.sparse, update=self.update)
        return _Exchange.apply(columns, self.ranks)

    def rows(self, slots: Tensor) -> Tensor:
        """slots (...) -> whole rows (..., d_value)."""
        one_each = slots.reshape(-1, 1)
        return self(one_each, torch.ones(one_each.shape, device=slots.device)).reshape(*slots.shape, self.d_value)

    @torch.no_grad()
    def draw(self, std: float, generator: torch.Generator, rows: int = 4096) -> None:
        """Fill the columns as those of the whole table would be, of which no more than `rows` rows exist at a time."""
        width = self.values.shape[1]
        first = width * dist.get_rank()
        for part in self.values.split(rows):
            whole = torch.empty(len(part), self.d_value).normal_(std=std, generator=generator)
            part.copy_(whole[:, first : first + width])


def refuse_columns(d_value: int, ranks: int) -> None:
    """Raises ValueError for a table that cannot be cut."""
    if d_value % ranks or d_value == ranks:
        raise ValueError(
            f"shard_tables=true: a table {d_value} wide cannot be cut into columns for {ranks} processes; "
            "accepted: a number of processes that divides the width, and two columns or more each"
        )


def gathered(own: Tensor, ranks: int) -> Tensor:
    """(t, ...) of each process -> (N t, ...), in the order of the ranks."""
    parts = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(parts, own.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """`gathered`, whose gradient is the sum of what the processes say about this one's part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return gathered(own, ranks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        said = torch.empty_like(grad)
        dist.all_to_all_single(said, grad.contiguous())
        return said.unflatten(0, (ctx.ranks, -1)).sum(0), None


class _Exchange(torch.autograd.Function):
    """(N t, d / N), some columns for the tokens of all -> (t, d), all columns for those of this process."""

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
    """What one process sends to others in a step, forward and backward, of `tokens` tokens of its own.

    Slots of eight bytes and weights of four go to all; sums of columns and their gradients are exchanged, and so are
    the gradients of weights. What a rule exchanges for its state comes on top: a number for each row that was read.
    """
    others = ranks - 1
    return tokens * others * (reads * (8 + 4 + 4) + 2 * 4 * d_value / ranks)
