"""Engram (DeepSeek 2026, arXiv 2601.07372): hashed n-grams of several orders, gated by the residual stream.

tokens   ... 17 4 9     (4, 9) and (17, 4, 9), hashes of each  ->  rows side by side: e
gate     how well RMSNorm(e W_k) agrees with RMSNorm(x)        ->  u = gate * e W_v
out      u + silu(convolution of RMSNorm(u) over earlier positions)

The gate is sigmoid(sign(s) * sqrt|s|) with s = RMSNorm(e W_k) . RMSNorm(x) / sqrt(d_model), as in the authors' demo.
Not as published: tokens are hashed as they are, all hashes have tables of one size, and the hash is another.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import within
from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload, matrix_cost
from memlayers.layers.ngram import ngram_slots
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool

TAPS = 4  # of the convolution; their distance is the order of the longest n-gram


@dataclass
class Engram:
    """Added to the residual stream before attention, as published: extra@model.residual=engram."""

    orders: list[int] = field(default_factory=lambda: [2, 3])  # the n of the n-grams
    hashes: int = 4  # rows that a token reads for each order
    num_slots: int = 16_384  # counted in rows of width d_model; rows are d_model / (orders * hashes) wide, rounded down
    gate: bool = True
    convolution: bool = True
    pool: str = "own"  # own, or shared by all layers of the model that ask for one of this size

    def validate(self, key: str, d_model: int) -> None:
        if not self.orders or len(set(self.orders)) < len(self.orders):
            raise ValueError(f"{key}.orders={self.orders} is empty or has one twice; accepted: such as [2, 3]")
        for order in self.orders:
            within(f"{key}.orders", order, 1, 16)
        within(f"{key}.hashes", self.hashes, 1, 1024)
        within(f"{key}.num_slots", self.num_slots, 2, 2**31)
        validate_pool(key, self.pool)

    def build(self, site: Site) -> "GatedNGrams":
        rows = len(self.orders) * self.hashes
        pool = site.pool(self.num_slots * rows, max(1, site.d_model // rows), self.pool)
        return GatedNGrams(site.d_model, pool, self.orders, self.hashes, self.gate, self.convolution)


class GatedNGrams(nn.Module):
    """Letters: b batch, s sequence, r rows read per token, each from its own part of the pool."""

    param_roles: ClassVar[dict[str, str]] = {"to_value.weight": "output"}

    def __init__(self, d_model: int, pool: MemoryPool, orders: list[int], hashes: int, gate: bool, convolution: bool):
        super().__init__()
        self.pool, self.orders, self.hashes = pool, orders, hashes
        self.rows = len(orders) * hashes
        width = self.rows * pool.d_value
        self.to_value = nn.Linear(width, d_model, bias=False)
        self.to_key = nn.Linear(width, d_model, bias=False) if gate else None
        self.key_norm, self.norm = (nn.RMSNorm(d_model) if gate else None for _ in range(2))
        self.conv_norm = nn.RMSNorm(d_model) if convolution else None
        self.taps = Taps(d_model) if convolution else None

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) and tokens (b, s) -> hidden (b, s, d_model) and the reads."""
        part = len(self.pool.values) // self.rows
        slots = torch.cat([ngram_slots(tokens, order, self.hashes, part) for order in self.orders], dim=-1)
        slots = slots + part * torch.arange(self.rows, device=slots.device)
        weights = torch.ones(slots.shape, device=slots.device)
        read = self.pool(slots[..., None], weights[..., None]).to(x.dtype).flatten(2)
        out = self.to_value(read).to(x.dtype)
        if self.to_key is not None and self.key_norm is not None and self.norm is not None:
            key = self.to_key(read).to(x.dtype)
            score = (self.key_norm(key) * self.norm(x)).mean(dim=-1, keepdim=True) * x.shape[-1] ** 0.5
            out = out * torch.sigmoid(score.sign() * score.abs().clamp(min=1e-6).sqrt())
        if self.taps is not None and self.conv_norm is not None:
            out = out + F.silu(self.taps(self.conv_norm(out), max(self.orders)))
        return FFNOutput(out, reads=Reads(slots, weights))

    def cost(self, work: Workload) -> Cost:
        """The reads, the matrices, the gate's dot product and the convolution."""
        total = self.pool.read_cost(self.rows, work, learned=False) + matrix_cost(*self.to_value.weight.shape)
        if self.to_key is not None:
            d_model = self.to_key.weight.shape[0]
            product = Cost(2 * d_model, 4 * d_model, params=2 * d_model)  # and gains of norms
            total += matrix_cost(*self.to_key.weight.shape) + product
        if self.taps is not None:
            total += matrix_cost(*self.taps.weight.shape) + Cost(params=len(self.taps.weight))
        return total


class Taps(nn.Module):
    """Dilated convolution by channel: y[t] = sum over i of weight[:, i] * x[t - i * distance]; starts as zero."""

    param_roles: ClassVar[dict[str, str]] = {"weight": "filter"}

    def __init__(self, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model, TAPS))

    def forward(self, x: Tensor, distance: int) -> Tensor:
        """x (b, s, d_model) -> (b, s, d_model), with taps `distance` positions apart."""
        shifted = [F.pad(x, (0, 0, i * distance, 0))[:, : x.shape[1]] for i in range(TAPS)]
        return torch.stack([earlier * self.weight[:, i] for i, earlier in enumerate(shifted)]).sum(dim=0)
