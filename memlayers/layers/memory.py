"""Memory: a feed-forward that is a lookup in a table (Memory Layers at Scale, section 3; Lample et al. 2019).

token -> query -> the topk best of n * n slots in each head -> softmax of their scores -> weighted sum of values
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import at_least, one_of, within
from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.lookup import NORMS, SCORES, ProductKeyLookup
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool


@dataclass
class Memory:
    """The paper's "Memory" is one layer, in the middle; its "Memory+" are three, with a gate and one shared pool."""

    num_keys: int = 64  # n keys a half: n * n slots
    heads: int = 4
    topk: int = 8
    d_key: int | None = None  # both halves together; null is d_model / 2, the paper's choice for Memory+
    norm: str = "rms"  # rms (queries and keys), batch (queries) or none: layers/lookup.py
    score: str = "softmax"  # how scores become weights: softmax, sink, sigmoid or relu
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size
    gate: bool = False  # GatedMemory, below
    learned: bool = True  # false: queries and keys stay as they were drawn, and only values are trained
    value_dtype: str = "float32"
    d_value: int | None = None  # width of a value, which with a gate need not be d_model, as null is

    def validate(self, key: str, d_model: int) -> None:
        at_least(f"{key}.num_keys", self.num_keys, 2)
        within(f"{key}.heads", self.heads, 1, 1024)
        within(f"{key}.topk", self.topk, 1, self.num_keys)
        width = self.key_width(d_model)
        if width < 2 or width % 2:
            raise ValueError(f"{key}.d_key={width} is not even; accepted: an even number, as a key has two halves")
        one_of(f"{key}.norm", self.norm, NORMS)
        one_of(f"{key}.score", self.score, SCORES)
        validate_pool(key, self.pool, self.value_dtype)
        at_least(f"{key}.d_value", d_model if self.d_value is None else self.d_value, 1)
        if not self.gate and self.d_value not in (None, d_model):
            accepted = f"null, or {key}.gate=true, which projects it"
            raise ValueError(f"{key}.d_value={self.d_value} is not the width of the model; accepted: {accepted}")

    def key_width(self, d_model: int) -> int:
        return d_model // 2 if self.d_key is None else self.d_key

    def build_lookup(self, site: Site) -> ProductKeyLookup:
        """The lookup alone, which PEER uses too."""
        return ProductKeyLookup(
            site.d_model,
            num_keys=self.num_keys,
            heads=self.heads,
            topk=self.topk,
            d_key=self.key_width(site.d_model),
            norm=self.norm,
            score=self.score,
            look_up=site.kernels.look_up,
        ).requires_grad_(self.learned)

    def build(self, site: Site) -> "ProductKeyMemory | GatedMemory":
        lookup = self.build_lookup(site)
        pool = site.pool(self.num_keys**2, self.d_value or site.d_model, self.pool, self.value_dtype)
        return GatedMemory(site.d_model, lookup, pool) if self.gate else ProductKeyMemory(lookup, pool)


class ProductKeyMemory(nn.Module):
    """The paper's "Memory": the sum over heads of weighted values, each as wide as the model."""

    def __init__(self, lookup: ProductKeyLookup, pool: MemoryPool):
        super().__init__()
        self.lookup, self.pool = lookup, pool

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model) and the reads."""
        reads = self.lookup(x, tokens)
        return FFNOutput(self.pool(reads.slots, reads.weights).to(x.dtype), reads=reads)

    def cost(self, work: Workload) -> Cost:
        """The lookup and the read."""
        return self.lookup.cost(work) + self.pool.read_cost(self.lookup.heads * self.lookup.topk, work)


class GatedMemory(nn.Module):
    """The module of "Memory+" (section 3.3): (y * silu(x W1)) W2, where y is what ProductKeyMemory would return.

    W1 (d_model, d_value) is the gate; W2 (d_value, d_model) projects to the residual stream.
    """

    param_roles: ClassVar[dict[str, str]] = {"out.weight": "output"}

    def __init__(self, d_model: int, lookup: ProductKeyLookup, pool: MemoryPool):
        super().__init__()
        self.lookup, self.pool = lookup, pool
        d_value = pool.d_value
        self.gate = nn.Linear(d_model, d_value, bias=False)
        self.out = nn.Linear(d_value, d_model, bias=False)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model) and the reads."""
        reads = self.lookup(x, tokens)
        read = self.pool(reads.slots, reads.weights).to(x.dtype)
        return FFNOutput(self.out(F.silu(self.gate(x)) * read), reads=reads)

    def cost(self, work: Workload) -> Cost:
        """The lookup, the read, the gate and the output projection."""
        return (
            self.lookup.cost(work)
            + self.pool.read_cost(self.lookup.heads * self.lookup.topk, work)
            + matrix_cost(*self.gate.weight.shape)
            + matrix_cost(*self.out.weight.shape)
        )
