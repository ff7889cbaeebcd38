"""Layers that choose among experts, with loops: PEER and mixtures of larger experts."""

import torch
from naive import dense, gelu, lookup, positions, silu
from torch import Tensor

from memlayers.layers.moe import MixtureOfExperts
from memlayers.layers.peer import SingleNeuronExperts


def peer(layer: SingleNeuronExperts, x: Tensor, tokens: Tensor) -> Tensor:
    """Every expert hears the token, and says its vector as loudly as it was chosen and as it heard."""
    out, d_model = torch.zeros_like(x), x.shape[-1]
    for b, s, slot, weight in lookup(layer.lookup, x):
        row = layer.pool.values[slot].float()
        heard = torch.dot(row[:d_model], x[b, s])
        out[b, s] += weight * gelu(heard) * row[d_model:]
    return out


def moe(layer: MixtureOfExperts, x: Tensor, tokens: Tensor) -> Tensor:
    """Of each token the likeliest experts, one hidden unit at a time; then those that all tokens pass."""
    experts, _, hidden = layer.down.shape
    out = torch.zeros_like(x)
    for b, s in positions(x):
        odds = [torch.exp(torch.dot(layer.router.weight[e], x[b, s])) for e in range(experts)]
        share = [one / sum(odds) for one in odds]
        lead = [0.0] * experts if layer.bias is None else layer.bias.tolist()
        best = sorted(range(experts), key=lambda e: -(share[e].item() + lead[e]))[: layer.topk]
        total = sum(share[e] for e in best) if layer.topk > 1 else 1
        for e in best:
            for unit in range(hidden):
                first = torch.dot(layer.up[e, unit], x[b, s])
                value = silu(first) * torch.dot(layer.up[e, hidden + unit], x[b, s]) if layer.gated else gelu(first)
                out[b, s] += share[e] / total * value * layer.down[e, :, unit]
    return out if layer.shared is None else out + dense(layer.shared, x, tokens)
