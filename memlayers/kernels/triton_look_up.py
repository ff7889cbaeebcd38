"""Top-k selection of product keys in Triton: of both halves, then of their sums, in one pass over the half scores."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from memlayers.kernels.checks import Unsupported
from memlayers.kernels.triton_checks import accept_on_gpu
from memlayers.layers.product_keys import half_scores, normed_and_scaled, winners
from memlayers.layers.rows import softmax_of_sorted

MOST_KEYS, MOST_TOPK = 8192, 64  # what one program holds: half scores, and the best of them


def look_up(query: Tensor, keys: Tensor, gains: Sequence[Tensor] | None, k: int) -> tuple[Tensor, Tensor]:
    """As memlayers.layers.product_keys.look_up; matrix products and gradients are torch's, the top-k is one kernel.

    Raises Unsupported for more than MOST_KEYS keys a half, and for k above MOST_TOPK.
    """
    accept_on_gpu("query", query, torch.float32, torch.bfloat16)
    n = keys.shape[-2]
    if n > MOST_KEYS or k > MOST_TOPK:
        raise Unsupported(f"{n} keys a half and topk={k}; accepted: up to {MOST_KEYS} and {MOST_TOPK}")
    half = half_scores(*normed_and_scaled(query, keys, gains))
    slots, score = winners(half, *best_pairs(half.detach(), k))
    return slots, softmax_of_sorted(score.float())


def best_pairs(half: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """half scores (two, h, t, n) -> row and column keys of the k best sums, best first, each (h, t, k) int64."""
    _, h, t, n = half.shape
    row, column = (torch.empty(h, t, k, dtype=torch.int64, device=half.device) for _ in range(2))
    if row.numel():
        sizes = k, triton.next_power_of_2(n), triton.next_power_of_2(k)
        warps = 1 if n <= 1024 else 4
        with torch.cuda.device_of(half):
            _select[(h * t,)](half.contiguous(), row, column, h * t, n, *sizes, num_warps=warps)
    return row, column


@triton.jit
def _best(score, n, k: tl.constexpr, RANKS: tl.constexpr):
    """The k best of a vector, best first, and their indices, as vectors of RANKS entries, padded with -inf and 0."""
    rank, place = tl.arange(0, RANKS), tl.arange(0, score.shape[0])
    best = tl.full((RANKS,), float("-inf"), tl.float32)
    where = tl.zeros((RANKS,), tl.int32)
    for i in range(k):
        at = tl.minimum(tl.argmax(score, axis=0), n - 1)  # if all scores are nan, padding may win
        best = tl.where(rank == i, tl.max(score, axis=0), best)
        where = tl.where(rank == i, at, where)
        score = tl.where(place == at, float("-inf"), score)
    return best, where


@triton.jit
def _at(vector, index, RANKS: tl.constexpr):
    """vector[index], for a vector in registers."""
    return tl.sum(tl.where(tl.arange(0, RANKS) == index, vector, 0), axis=0)


@triton.jit
def _select(half, row, column, count, n, k: tl.constexpr, KEYS: tl.constexpr, RANKS: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)  # one token of one head
    key = tl.arange(0, KEYS)
    scores = tl.load(half + program * n + key, mask=key < n, other=float("-inf")).to(tl.float32)
    others = tl.load(half + (count + program) * n + key, mask=key < n, other=float("-inf")).to(tl.float32)
    best, where = _best(scores, n, k, RANKS)
    best_other, where_other = _best(others, n, k, RANKS)
    sums = tl.reshape(best[:, None] + best_other[None, :], (RANKS * RANKS,))
    rank, place = tl.arange(0, RANKS), tl.arange(0, RANKS * RANKS)
    rows, columns = tl.zeros((RANKS,), tl.int32), tl.zeros((RANKS,), tl.int32)
    for i in range(k):
        pair = tl.argmax(sums, axis=0)
        rows = tl.where(rank == i, _at(where, pair // RANKS, RANKS), rows)
        columns = tl.where(rank == i, _at(where_other, pair % RANKS, RANKS), columns)
        sums = tl.where(place == pair, float("-inf"), sums)
    tl.store(row + program * k + rank, rows.to(tl.int64), mask=rank < k)
    tl.store(column + program * k + rank, columns.to(tl.int64), mask=rank < k)
