"""Drawing synthetic subjects. A name of several parts is a row of digits, or one number, its rank."""

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor


def sample_distinct(count: int, total: int, generator: torch.Generator, taken: Tensor | None = None) -> Tensor:
    """Draw distinct integers in [0, total), none of them in `taken`, in random order: (count,).

    Memory is O(count + taken), however large total is: if most numbers are free, repeats are redrawn.
    """
    taken = torch.empty(0, dtype=torch.long) if taken is None else taken
    wanted = len(taken) + count
    if total <= 4 * wanted:
        numbers = torch.randperm(total, generator=generator)
        return numbers[~torch.isin(numbers, taken)][:count]
    chosen = taken
    while len(chosen) < wanted:
        drawn = torch.cat([chosen, torch.randint(total, (count,), generator=generator)])
        first = numpy.unique(drawn, return_index=True)[1]  # where each number occurs first
        chosen = drawn[numpy.sort(first)]
    return chosen[len(taken) : wanted]


def nth_free(index: Tensor, taken: Tensor) -> Tensor:
    """The numbers (n,) that stand at `index` (n,) among those, from 0 up, that `taken` (m,) leaves out."""
    taken = taken.sort().values
    before = taken - torch.arange(len(taken))  # how many free numbers are below each taken one
    return index + torch.searchsorted(before, index, right=True)


def to_digits(ranks: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mixed-radix digits of ranks (n,), most significant first: (n, parts); rank 11 under sizes 3, 4 is 2, 3."""
    return torch.stack(torch.unravel_index(ranks, tuple(sizes)), dim=1)


def to_ranks(digits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Ranks (n,) of mixed-radix digits (n, parts): the inverse of to_digits."""
    return torch.from_numpy(numpy.ravel_multi_index(tuple(digits.T.numpy()), tuple(sizes)))


def spell_digits(digits: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Look up each column of digits (n, parts) in the table of its part: (n, parts)."""
    return torch.stack([table[column] for table, column in zip(tables, digits.T, strict=True)], dim=1)


def draw_facts(count: int, cardinalities: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniform, independent attributes of `count` subjects: (count, attributes)."""
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in cardinalities], dim=1)
