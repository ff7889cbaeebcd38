"""A layer added to the dense feed-forward instead of replacing it (Kim & Jung 2020, "Large product key memory")."""

from torch import Tensor, nn

from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload


class Beside(nn.Module):
    """The sum of a dense feed-forward and another layer on the same input."""

    def __init__(self, dense: FeedForward, layer: FeedForward):
        super().__init__()
        self.dense, self.layer = dense, layer

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model), with the layer's auxiliary loss and reads."""
        out = self.layer(x, tokens)
        return out._replace(hidden=self.dense(x, tokens).hidden + out.hidden)

    def cost(self, work: Workload) -> Cost:
        """The costs of both layers."""
        return self.dense.cost(work) + self.layer.cost(work)
