"""A table addressed by a hash of the last n tokens: no query, no key, no search (Engram, arXiv 2601.07372).

    tokens   ... 17 4 9     n = 3     hash h of (17, 4, 9)  ->  row h     read   mean of the rows of all hashes

The control for learned addresses: what a memory recalls beyond a table of the same size is due to them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import within
from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool


@dataclass
class NGram:
    """A feed-forward, or added to the residual stream or to the values of attention."""

    n: int = 3
    num_slots: int | None = 16_384  # null, with n = 1: a row for each token, as in value embeddings
    hashes: int = 4  # rows read per token
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    value_dtype: str = "float32"

    def validate(self, key: str, d_model: int) -> None:
        within(f"{key}.n", self.n, 1, 16)
        if self.num_slots is not None:
            within(f"{key}.num_slots", self.num_slots, 2, 2**31)
        elif (self.n, self.hashes) != (1, 1):
            raise ValueError(f"{key}.num_slots=null is one for each token; accepted: with n=1 and hashes=1")
        within(f"{key}.hashes", self.hashes, 1, 1024)
        validate_pool(key, self.pool, self.value_dtype)

    def build(self, site: Site) -> "NGramTable":
        pool = site.pool(self.num_slots or site.num_tokens, site.d_model, self.pool, self.value_dtype)
        return NGramTable(pool, self.n, self.hashes, by_hash=self.num_slots is not None)


class NGramTable(nn.Module):
    """The mean of `hashes` rows of the pool, each addressed by a different hash."""

    def __init__(self, pool: MemoryPool, n: int, hashes: int, by_hash: bool = True):
        super().__init__()
        self.pool, self.n, self.hashes, self.by_hash = pool, n, hashes, by_hash

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) for its shape, tokens (b, s) -> hidden (b, s, d_model) and the reads."""
        slots = ngram_slots(tokens, self.n, self.hashes, len(self.pool.values)) if self.by_hash else tokens[..., None]
        weights = torch.full(slots.shape, 1 / self.hashes, device=slots.device)
        return FFNOutput(self.pool(slots, weights).to(x.dtype), reads=Reads(slots, weights))

    def cost(self, work: Workload) -> Cost:
        """The reads; hashes are integer arithmetic, a few operations a token."""
        return self.pool.read_cost(self.hashes, work, learned=False)


def ngram_slots(tokens: Tensor, n: int, hashes: int, size: int) -> Tensor:
    """Hash the n tokens up to each position: tokens (b, s) -> slots (b, s, hashes) in 0 .. size - 1.

    Multiply, add and xor-shift in wrapping int64, by multipliers of splitmix64; positions before the first hold -1.
    """
    state = torch.arange(1, hashes + 1, device=tokens.device) * 0x9E3779B97F4A7C1
    state = state.expand(*tokens.shape, hashes)
    for back in range(n):
        shifted = F.pad(tokens, (back, 0), value=-1)[:, : tokens.shape[1]]
        state = (state ^ (shifted[..., None] + 1 + back)) * -0x40A7B892E31B1A47
        state = state ^ (state >> 27)
    return (state * -0x6B2FB644ECCEEE15 >> 16) % size
