"""PEER: a million experts of one neuron each, found by product keys (Mixture of A Million Experts, section 2; He 2024).

token x -> the topk best of n * n experts in each head -> sum over them of  weight * gelu(u . x) * v

A memory adds v whatever the token; an expert scales v by a function of the token. So two relations of one subject can
read the same rows and get different outputs.

Not as published: each head has keys of its own, as in Lample et al., where PEER's heads share one set.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

from einops import einsum
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.layers.memory import Memory
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site


@dataclass
class Peer:
    """An expert is a row of width 2 * d_model, u then v: twice the parameters of a memory with as many slots."""

    multiplies_values: ClassVar[bool] = True  # parts of a row, of which neither has a gradient while both are 0
    num_keys: int = 64  # n keys a half: n * n experts
    heads: int = 4
    topk: int = 8
    d_key: int | None = None  # both halves together; null is d_model / 2
    norm: str = "rms"  # batch is the paper's
    score: str = "softmax"
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    value_dtype: str = "float32"

    def validate(self, key: str, d_model: int) -> None:
        self.memory().validate(key, d_model)

    def memory(self) -> Memory:
        """The settings of a Memory with the same lookup."""
        return Memory(**{field.name: getattr(self, field.name) for field in fields(self)})

    def build(self, site: Site) -> "SingleNeuronExperts":
        pool = site.pool(self.num_keys**2, 2 * site.d_model, self.pool, self.value_dtype)
        return SingleNeuronExperts(self.memory().build_lookup(site), pool)


class SingleNeuronExperts(nn.Module):
    """The weighted sum of the experts of all heads."""

    def __init__(self, lookup: ProductKeyLookup, pool: MemoryPool):
        super().__init__()
        self.lookup, self.pool = lookup, pool

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model), and the reads: how much of each v was added up."""
        reads = self.lookup(x, tokens)
        u, v = self.pool.rows(reads.slots).to(x.dtype).chunk(2, dim=-1)  # (b, s, r, d_model) each
        weights = reads.weights.to(x.dtype) * F.gelu(einsum(u, x, "b s r d, b s d -> b s r"))
        return FFNOutput(einsum(v, weights, "b s r d, b s r -> b s d"), reads=Reads(reads.slots, weights))

    def cost(self, work: Workload) -> Cost:
        """The lookup, and two products with heads * topk rows per token, forward and backward. Not counted: the sort of
        these rows in the optimizer, 0.2% of the FLOPs of a layer 64 wide; a memory sorts in backward, which is.
        """
        size = self.lookup.heads * self.lookup.topk * self.pool.d_value
        return self.lookup.cost(work) + Cost(2 * size, 4 * size, size * self.pool.values.element_size())
