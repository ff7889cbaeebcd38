"""Memory added beside the feed-forward instead of replacing it (Kim & Jung 2020, "Large product key memory")."""

from torch import Tensor, nn

from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload


class Beside(nn.Module):
    """The sum of a dense feed-forward and a memory on the same input."""

    def __init__(self, dense: FeedForward, memory: FeedForward):
        super().__init__()
        self.dense, self.memory = dense, memory

    def forward(self, x: Tensor) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model) and the memory's reads."""
        memory = self.memory(x)
        return FFNOutput(self.dense(x).hidden + memory.hidden, memory.reads)

    def cost(self, work: Workload) -> Cost:
        return self.dense.cost(work) + self.memory.cost(work)
