"""Causal self-attention with rotary positions (Su et al. 2021, arXiv 2104.09864)."""

from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, Workload, matrix_cost


class Attention(nn.Module):
    """Multi-head attention without biases. Letters: b batch, s sequence, h heads, c head width (even)."""

    param_roles: ClassVar[dict[str, str]] = {"out.weight": "output"}

    def __init__(self, d_model: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """x (b, s, d_model) -> (b, s, d_model); `added` (b, s, d_model) is added to the values of all heads."""
        qkv = rearrange(self.to_qkv(x), "b s (three h c) -> three b h s c", three=3, h=self.num_heads)
        query, key = rotate(qkv[:2])
        value = qkv[2] if added is None else qkv[2] + rearrange(added, "b s (h c) -> b h s c", h=self.num_heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(rearrange(mixed, "b h s c -> b s (h c)"))

    def cost(self, work: Workload) -> Cost:
        """The projections, and scores and weighted sums over all s * s pairs of positions, masked ones included.

        Backward takes 5 such products against 2 forward: the scores are recomputed.
        """
        product = 2 * work.sequence * self.out.weight.shape[0]
        square = Cost(2 * product, 5 * product)
        return matrix_cost(*self.to_qkv.weight.shape) + matrix_cost(*self.out.weight.shape) + square


def rotate(x: Tensor) -> Tensor:
    """Rotate each pair of channels (i, i + c/2) of (..., s, c) by position * 10000 ** (-2 i / c)."""
    length, width = x.shape[-2:]
    rate = 10_000.0 ** (-torch.arange(0, width, 2, device=x.device) / width)
    angle = torch.arange(length, device=x.device)[:, None] * rate
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
