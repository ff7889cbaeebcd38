"""Memory+: a memory gated by its input (Memory Layers at Scale, section 3.3), usually one pool for several layers."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.memory import ProductKeyLookup
from memlayers.layers.pool import MemoryPool


class MemoryPlus(nn.Module):
    """(y * silu(x W1)) W2, where y is what ProductKeyMemory would return.

    The gate lets the token decide which parts of the values it takes; W2 turns them to the residual stream's axes.
    """

    param_roles: ClassVar[dict[str, str]] = {"out.weight": "output"}

    def __init__(self, d_model: int, lookup: ProductKeyLookup, pool: MemoryPool):
        super().__init__()
        self.lookup, self.pool = lookup, pool
        d_value = pool.values.shape[1]
        self.gate = nn.Linear(d_model, d_value, bias=False)
        self.out = nn.Linear(d_value, d_model, bias=False)

    def forward(self, x: Tensor) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model) and the reads."""
        reads = self.lookup(x)
        read = self.pool(reads.slots.flatten(0, 1), reads.weights.flatten(0, 1))
        gate = F.silu(self.gate(x))
        return FFNOutput(self.out(gate * read.to(x.dtype).view_as(gate)), reads)

    def cost(self, work: Workload) -> Cost:
        return (
            self.lookup.cost(work)
            + self.pool.read_cost(self.lookup.heads * self.lookup.topk, work)
            + matrix_cost(*self.gate.weight.shape)
            + matrix_cost(*self.out.weight.shape)
        )
