"""Memory+ (Memory Layers at Scale, section 3.3): the input gates what is read from the values."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.layers.pool import MemoryPool


class GatedMemory(nn.Module):
    """(y * silu(x W1)) W2, where y is what ProductKeyMemory would return.

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
        read = self.pool(reads.slots.flatten(0, 1), reads.weights.flatten(0, 1))
        gate = F.silu(self.gate(x))
        return FFNOutput(self.out(gate * read.to(x.dtype).view_as(gate)), reads=reads)

    def cost(self, work: Workload) -> Cost:
        """The lookup, the read, the gate and the output projection."""
        return (
            self.lookup.cost(work)
            + self.pool.read_cost(self.lookup.heads * self.lookup.topk, work)
            + matrix_cost(*self.gate.weight.shape)
            + matrix_cost(*self.out.weight.shape)
        )
