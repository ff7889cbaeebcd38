"""Exact top-k over n * n slots from only 2 * n scores (Lample et al. 2019, arXiv 1907.05242, section 3.1).

The key of slot i * n + j is the pair (row key i, column key j); its score is the sum of the two half scores.

    half scores   rows     0.9  0.1  0.5        slots   00 01 02      the two best rows and the two best columns
                  columns  0.2  0.8  0.3                10 11 12      hold the two best slots: 01 (1.7), 21 (1.3)
                                                        20 21 22
"""

import math
from collections.abc import Iterable, Sequence

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn import functional as F

from memlayers.layers.rows import softmax_of_sorted


def product_key_topk(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Slots and scores of the k best of n * n product keys, best first; exact for the scores as they are, which are in
    bfloat16 under autocast (a kernel in C takes float32).

    Letters: t tokens, h heads, two halves, c half-key width, n keys a half.
    query (t, h, two, c), keys (h, two, n, c), k <= n  ->  slots (t, h, k) int64, scores (t, h, k).
    Of equal scores any may come first. Gradients flow to the k winning scores and from there to query and keys.
    """
    half = half_scores(query, keys)
    with torch.no_grad():  # the choice has no gradient; the chosen scores do
        score, index = half.topk(k, dim=-1)
        row, column = staircase(k, query.device)
        pair = score[0].index_select(-1, row) + score[1].index_select(-1, column)
        where = pair.topk(k, dim=-1).indices
        chosen = index[0].gather(-1, row[where]), index[1].gather(-1, column[where])
    return winners(half, *chosen)


def look_up(query: Tensor, keys: Tensor, gains: Sequence[Tensor] | None, k: int) -> tuple[Tensor, Tensor]:
    """Slots of the k best product keys and their weights: the softmax over their scores, best first.

    gains: of queries and of keys, as in best_slots, or None.
    query (t, h, two, c), keys (h, two, n, c), k <= n  ->  slots (t, h, k) int64, weights (t, h, k) that sum to 1.
    """
    slots, score = best_slots(query, keys, gains, k)
    return slots, softmax_of_sorted(score)


def best_slots(query: Tensor, keys: Tensor, gains: Iterable[Tensor] | None, k: int) -> tuple[Tensor, Tensor]:
    """Slots of the k best product keys and their scores / sqrt(c) in float32, each (t, h, k), best first.

    With gains, of queries and of keys, each (c,), each half of both is RMS-normed before it is scored.
    """
    slots, score = product_key_topk(*normed_and_scaled(query, keys, gains), k)
    return slots, score.float()


def normed_and_scaled(query: Tensor, keys: Tensor, gains: Iterable[Tensor] | None) -> tuple[Tensor, Tensor]:
    """Query and keys, each half RMS-normed if there are gains, and keys divided by sqrt(c)."""
    if gains:
        query, keys = (F.rms_norm(x, gain.shape, gain) for x, gain in zip((query, keys), gains, strict=True))
    return query, keys * query.shape[-1] ** -0.5  # scaled once, not for every token


def half_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Dot products of query (t, h, two, c) and keys (h, two, n, c): (two, h, t, n)."""
    return einsum(query, keys, "t h two c, h two n c -> two h t n")


def winners(half: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Slots and scores, each (t, h, k), of half scores (two, h, t, n) and the chosen row and column keys (h, t, k)."""
    score = half.gather(-1, torch.stack([row, column])).sum(dim=0)
    slot = row * half.shape[-1] + column
    return rearrange(slot, "h t k -> t h k"), rearrange(score, "h t k -> t h k")


def staircase(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All pairs of ranks (a, b) of half scores whose sum can be among the k best: (a + 1)(b + 1) <= k.

    A pair (a, b) is no better than any of the other (a + 1)(b + 1) - 1 pairs with both ranks up to its own. About
    k ln k of the k * k pairs are left.
    """
    pairs = [(a, b) for a in range(k) for b in range(k // (a + 1))]
    rows, columns = torch.tensor(pairs, device=device).unbind(-1)
    return rows, columns


def selection_flops(candidates: int, k: int) -> int:
    """Comparisons of a top-k of so many candidates with a heap."""
    return candidates * max(1, math.ceil(math.log2(k)))
