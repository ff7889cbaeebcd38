"""A short causal convolution over positions, channel by channel, before attention and before the feed-forward.

It mixes the preceding tokens into each position: Canon layers A and C (Allen-Zhu 2025, arXiv 2512.17351).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import within
from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.site import Site


@dataclass
class ShortConv:
    """Before attention or before the feed-forward."""

    width: int = 4  # positions: the current one and those before it

    def validate(self, key: str, d_model: int) -> None:
        within(f"{key}.width", self.width, 1, 64)

    def build(self, site: Site) -> "ShortConvolution":
        return ShortConvolution(site.d_model, self.width)


class ShortConvolution(nn.Module):
    """y[t] = x[t] + sum over i of weight[:, i] * x[t - width + 1 + i]; starts as the identity."""

    param_roles: ClassVar[dict[str, str]] = {"weight": "filter"}

    def __init__(self, d_model: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model, width))

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        """x (b, s, d_model) -> hidden (b, s, d_model)."""
        d_model, width = self.weight.shape
        if not x.shape[1]:
            return FFNOutput(x)  # conv1d refuses an empty sequence
        padded = F.pad(x.mT, (width - 1, 0))
        return FFNOutput(x + F.conv1d(padded, self.weight[:, None], groups=d_model).mT)

    def cost(self, work: Workload) -> Cost:
        """A filter of `width` taps for each channel."""
        return matrix_cost(*self.weight.shape)
