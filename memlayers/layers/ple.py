"""Per-layer embeddings (PLE, as in Gemma 3n): each block reads a narrow row by token, gated by the residual stream.

token t, stream h    h + RMSNorm((gelu(h G) * table[t]) P)

Not as published: Gemma also adds a projection of the token's embedding to the row, and scales both. Gemma adds the
result at the end of a block, here it is added at the beginning: the first block has one, and none follows the last.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import at_least
from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload, matrix_cost
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool


@dataclass
class PLE:
    """Added to the residual stream: extra@model.residual=ple."""

    d_row: int | None = None  # null is d_model / 8, as Gemma's
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    value_dtype: str = "float32"

    def validate(self, key: str, d_model: int) -> None:
        at_least(f"{key}.d_row", self.width(d_model), 1)
        validate_pool(key, self.pool, self.value_dtype)

    def width(self, d_model: int) -> int:
        return d_model // 8 if self.d_row is None else self.d_row

    def build(self, site: Site) -> "PerLayerEmbedding":
        pool = site.pool(site.num_tokens, self.width(site.d_model), self.pool, self.value_dtype)
        return PerLayerEmbedding(site.d_model, pool)


class PerLayerEmbedding(nn.Module):
    """RMSNorm((gelu(x G) * table[token]) P), with a table as narrow as the pool's d_value."""

    def __init__(self, d_model: int, pool: MemoryPool):
        super().__init__()
        self.pool = pool
        self.gate = nn.Linear(d_model, pool.d_value, bias=False)
        self.up = nn.Linear(pool.d_value, d_model, bias=False)
        self.norm = nn.RMSNorm(d_model)

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) and tokens (b, s) -> hidden (b, s, d_model) and the reads."""
        row = self.pool.rows(tokens).to(x.dtype)
        slots = tokens[..., None]
        hidden = self.norm(self.up(F.gelu(self.gate(x)) * row).to(x.dtype))
        return FFNOutput(hidden, reads=Reads(slots, torch.ones_like(slots, dtype=x.dtype)))

    def cost(self, work: Workload) -> Cost:
        """The two matrices, the bytes of the row, and the norm."""
        row = Cost(bytes_read=self.pool.d_value * self.pool.values.element_size(), params=self.norm.weight.numel())
        return matrix_cost(*self.gate.weight.shape) + matrix_cost(*self.up.weight.shape) + row
