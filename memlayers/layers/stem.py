"""STEM: a SwiGLU whose up-projection is a row of a table, one for each token (arXiv 2601.10639).

token t, input x     y = (silu(x G) * table[t]) D

It stores what depends on the current token alone, without a search and with one of three matrices less.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload, matrix_cost
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool


@dataclass
class Stem:
    """Its width is model.hidden, as in the model's dense feed-forwards."""

    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    value_dtype: str = "float32"

    def validate(self, key: str, d_model: int) -> None:
        validate_pool(key, self.pool, self.value_dtype)

    def build(self, site: Site) -> "TokenGLU":
        return TokenGLU(site.d_model, site.pool(site.num_tokens, site.hidden, self.pool, self.value_dtype))


class TokenGLU(nn.Module):
    """y = (silu(x G) * table[token]) D for x (b, s, d_model), with a table as wide as the hidden layer."""

    param_roles: ClassVar[dict[str, str]] = {"down.weight": "output"}

    def __init__(self, d_model: int, pool: MemoryPool):
        super().__init__()
        self.pool = pool
        hidden = pool.d_value
        self.gate = nn.Linear(d_model, hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) and tokens (b, s) -> hidden (b, s, d_model) and the reads."""
        row = self.pool.rows(tokens).to(x.dtype)
        slots = tokens[..., None]
        hidden = self.down(F.silu(self.gate(x)) * row).to(x.dtype)
        return FFNOutput(hidden, reads=Reads(slots, torch.ones_like(slots, dtype=x.dtype)))

    def cost(self, work: Workload) -> Cost:
        """The two matrices, and the bytes of the row."""
        row = Cost(bytes_read=self.pool.d_value * self.pool.values.element_size())
        return matrix_cost(*self.gate.weight.shape) + matrix_cost(*self.down.weight.shape) + row
