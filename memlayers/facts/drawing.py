"""Drawing synthetic subjects. A name of several parts is a row of digits, or one number, its rank."""

from collections.abc import Sequence

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
        chosen = first_occurrences(torch.cat([chosen, torch.randint(total, (count,), generator=generator)]))
    return chosen[len(taken) : wanted]


def first_occurrences(numbers: Tensor) -> Tensor:
    """The distinct numbers in order of their first occurrence."""
    ordered, positions = numbers.sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return numbers[positions[is_first].sort().values]


def nth_free(index: Tensor, taken: Tensor) -> Tensor:
    """The numbers (n,) that stand at `index` (n,) among those, from 0 up, that `taken` (m,) leaves out."""
    taken = taken.sort().values
    before = taken - torch.arange(len(taken))  # how many free numbers are below each taken one
    return index + torch.searchsorted(before, index, right=True)


def to_digits(ranks: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mixed-radix digits of ranks (n,), most significant first: (n, parts); rank 11 under sizes 3, 4 is 2, 3."""
    columns = []
    for size in reversed(sizes):
        columns.append(ranks % size)
        ranks = ranks // size
    return torch.stack(columns[::-1], dim=1)


def to_ranks(digits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Ranks (n,) of mixed-radix digits (n, parts): the inverse of to_digits."""
    ranks = torch.zeros(len(digits), dtype=torch.long)
    for column, size in zip(digits.T, sizes, strict=True):
        ranks = ranks * size + column
    return ranks


def spell_digits(digits: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Look up each column of digits (n, parts) in the table of its part: (n, parts)."""
    return torch.stack([table[column] for table, column in zip(tables, digits.T, strict=True)], dim=1)


def draw_facts(count: int, cardinalities: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniform, independent attributes of `count` subjects: (count, attributes)."""
    return torch.stack([torch.randint(size, (count,), generator=generator) for size in cardinalities], dim=1)
