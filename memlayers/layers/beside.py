"""A layer added to the dense feed-forward instead of replacing it (Kim & Jung 2020, "Large product key memory")."""

import torch
from torch import Tensor, nn

from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload


class Beside(nn.Module):
    """The sum of a dense feed-forward and another layer on the same input, times a learned scale if `is_scaled`.

    The scale starts at 0, so that training starts from the dense model alone.
    """

    def __init__(self, dense: FeedForward, layer: FeedForward, is_scaled: bool = False):
        super().__init__()
        self.dense, self.layer = dense, layer
        if is_scaled:
            self.param_roles = {"scale": "bias"}  # this role starts at zero
        self.scale = nn.Parameter(torch.empty(1)) if is_scaled else None

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model), with the layer's auxiliary loss and reads."""
        out = self.layer(x, tokens)
        hidden = out.hidden if self.scale is None else self.scale * out.hidden
        return out._replace(hidden=self.dense(x, tokens).hidden + hidden)

    def cost(self, work: Workload) -> Cost:
        """The costs of both layers, and the scale."""
        return self.dense.cost(work) + self.layer.cost(work) + Cost(params=0 if self.scale is None else 1)
