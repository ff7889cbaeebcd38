"""UltraMemV2 (Huang et al. 2025, arXiv 2508.18756): product keys, scores combined by a small matrix, no softmax.

score of slot (i, j)    sum over ranks a, b of  row_a[i] * core[a, b] * column_b[j] / rank
token x                 the topk best slots, each with a row (p, v) of the table   ->   (sum of score * (p . P x) * v) W

Not as published: in conf/ a row is as wide as the model, not a quarter of it, so that the table is as large as a
memory's; all blocks read one table; keys have the norm of layers/lookup.py; slots are not shuffled over devices; there
is one core; and values are initialised as in other memories.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from memlayers.checks import at_least, within
from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload, matrix_cost
from memlayers.layers.pool import MemoryPool
from memlayers.layers.product_keys import half_scores, normed_and_scaled, selection_flops
from memlayers.layers.site import Site, validate_pool


@dataclass
class UltraMemV2:
    """Added beside the feed-forward of every block, as published: arm=ultramem_v2."""

    multiplies_values: ClassVar[bool] = True  # parts of a row, of which neither has a gradient while both are 0
    num_keys: int = 64  # n keys a half: n * n slots
    topk: int = 16
    rank: int = 2  # of the core, with queries and keys for each rank
    d_key: int | None = None  # both halves together; null is d_model / 2
    d_row: int | None = None  # a quarter of a row is p, the rest is v; null is d_model / 4
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    value_dtype: str = "float32"

    def validate(self, key: str, d_model: int) -> None:
        at_least(f"{key}.num_keys", self.num_keys, 2)
        within(f"{key}.topk", self.topk, 1, self.num_keys)
        within(f"{key}.rank", self.rank, 1, 64)
        d_key, d_row = self.widths(d_model)
        if d_key < 2 or d_key % 2:
            raise ValueError(f"{key}.d_key={d_key} is not even; accepted: an even number, as a key has two halves")
        at_least(f"{key}.d_row", d_row, 2)
        validate_pool(key, self.pool, self.value_dtype)

    def widths(self, d_model: int) -> tuple[int, int]:
        d_key = d_model // 2 if self.d_key is None else self.d_key
        return d_key, d_model // 4 if self.d_row is None else self.d_row

    def build(self, site: Site) -> "TuckerMemory":
        d_key, d_row = self.widths(site.d_model)
        pool = site.pool(self.num_keys**2, d_row, self.pool, self.value_dtype)
        return TuckerMemory(site.d_model, pool, self.num_keys, self.topk, self.rank, d_key)


class TuckerMemory(nn.Module):
    """Letters: b batch, s sequence, t = b * s tokens, r rank, two halves, n keys a half, c half-key width, k topk."""

    param_roles: ClassVar[dict[str, str]] = {"keys": "memory_key", "core": "vector", "out.weight": "output"}

    def __init__(self, d_model: int, pool: MemoryPool, num_keys: int, topk: int, rank: int, d_key: int):
        super().__init__()
        self.pool, self.topk, self.rank = pool, topk, rank
        self.to_query = nn.Linear(d_model, rank * d_key, bias=False)
        self.keys = nn.Parameter(torch.empty(rank, 2, num_keys, d_key // 2))
        self.gains = nn.ParameterList([torch.ones(d_key // 2), torch.ones(d_key // 2)])  # of queries, of keys
        self.core = nn.Parameter(torch.ones(rank, rank))  # starts with rank 1
        self.d_pre = max(1, pool.d_value // 4)
        self.to_pre = nn.Linear(d_model, self.d_pre, bias=False)
        self.out = nn.Linear(pool.d_value - self.d_pre, d_model, bias=False)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model), and the reads: how much of each v was added up."""
        query = rearrange(self.to_query(x).to(self.keys.dtype), "b s (r two c) -> (b s) r two c", r=self.rank, two=2)
        half = half_scores(*normed_and_scaled(query, self.keys, self.gains))
        best = tucker_topk(half, self.core / self.rank, self.topk)
        slots, score = (chosen.view(*x.shape[:2], self.topk) for chosen in best)
        p, v = self.pool.rows(slots).to(x.dtype).split([self.d_pre, self.out.in_features], dim=-1)
        weights = score.to(x.dtype) * einsum(p, self.to_pre(x).to(x.dtype), "b s k p, b s p -> b s k")
        hidden = self.out(einsum(v, weights, "b s k v, b s k -> b s v"))
        return FFNOutput(hidden.to(x.dtype), reads=Reads(slots, weights))

    def cost(self, work: Workload) -> Cost:
        """The matrices, the top-k selections, the scores of the chosen slots, and the products with their rows, whose
        sort is the optimizer's and is not counted.
        """
        n, k, r, size = self.keys.shape[2], self.topk, self.rank, self.topk * self.pool.d_value
        selection = 4 * r * n + 2 * selection_flops(n, k) + 2 * k * r * (r + k) + selection_flops(k * k, k)
        total = Cost(selection + 2 * k * r * r, 4 * k * r * r, params=r * r + 2 * self.keys.shape[3])
        for matrix in (self.to_query.weight, self.keys, self.to_pre.weight, self.out.weight):
            total += matrix_cost(*matrix.shape)
        return total + Cost(2 * size, 4 * size, size * self.pool.values.element_size())


def tucker_topk(half: Tensor, core: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Slots and scores, each (t, k), of the k best pairs of k chosen rows and k chosen columns (arXiv 2411.12364).

    half (two, r, t, n), core (r, r) close to rank 1. Its first singular vectors weigh the ranks to choose rows and
    columns, whose k * k pairs are then scored exactly. Good pairs of two low halves are missed.
    """
    size = half.shape[-1]
    with torch.no_grad():  # the choice has no gradient; the chosen scores do
        left, _, right = torch.linalg.svd(core.float().nan_to_num())  # svd refuses nan; the loss will show it
        first = torch.stack([left[:, 0], right[0]]) * torch.where(left[:, 0].sum() >= 0, 1.0, -1.0)  # of any sign else
        near = (first[:, None].to(half.dtype) @ half.flatten(2)).view(2, -1, size)
        index = near.topk(k, dim=-1).indices  # (two, t, k)
        row, column = (s.gather(-1, i.expand(len(s), -1, -1)) for s, i in zip(half, index, strict=True))
        grid = rearrange(apply_core(core, row), "r t k -> t k r") @ rearrange(column, "r t k -> t r k")
        best = grid.flatten(1).topk(k, dim=-1).indices
        rows, columns = index[0].gather(-1, best // k), index[1].gather(-1, best % k)
    row, column = (s.gather(-1, i.expand(len(s), -1, -1)) for s, i in zip(half, (rows, columns), strict=True))
    return rows * size + columns, (apply_core(core, row) * column).sum(dim=0)


def apply_core(core: Tensor, row: Tensor) -> Tensor:
    """row (r, t, k) times the core: out[b] = sum over a of core[a, b] * row[a], (r, t, k)."""
    return (core.mT @ row.flatten(1)).view_as(row)
