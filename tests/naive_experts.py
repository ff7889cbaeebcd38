"""Layers that choose among experts, with loops: PEER, UltraMemV2 and mixtures of larger experts."""

import math

import torch
from naive import dense, gelu, lookup, norm, positions, silu
from torch import Tensor

from memlayers.layers.moe import MixtureOfExperts
from memlayers.layers.peer import SingleNeuronExperts
from memlayers.layers.ultramem_v2 import TuckerMemory


def peer(layer: SingleNeuronExperts, x: Tensor, tokens: Tensor) -> Tensor:
    """Every expert hears the token, and says its vector as loudly as it was chosen and as it heard."""
    out, d_model = torch.zeros_like(x), x.shape[-1]
    for b, s, slot, weight in lookup(layer.lookup, x):
        row = layer.pool.values[slot].float()
        heard = torch.dot(row[:d_model], x[b, s])
        out[b, s] += weight * gelu(heard) * row[d_model:]
    return out


def ultramem(layer: TuckerMemory, x: Tensor, tokens: Tensor) -> Tensor:
    """Rows and columns by the nearest core of rank 1; then each pair of them by the whole core, rank by rank."""
    rank, _, n, width = layer.keys.shape
    core, d_pre = layer.core / rank, layer.d_pre
    values, vectors = torch.linalg.eigh(core.detach() @ core.detach().T)  # its left singular vectors
    left = vectors[:, values.argmax()]
    left = left if left.sum() >= 0 else -left
    right = core.detach().T @ left
    out = torch.zeros_like(x)
    for b, s in positions(x):
        query = (layer.to_query.weight @ x[b, s]).view(rank, 2, width)
        score = [[[torch.zeros(()) for _ in range(n)] for _ in range(2)] for _ in range(rank)]
        for a in range(rank):
            for half in range(2):
                asked = norm(query[a, half], layer.gains[0])
                for key in range(n):
                    score[a][half][key] = torch.dot(asked, norm(layer.keys[a, half, key], layer.gains[1])) / math.sqrt(
                        width
                    )
        best = []
        for half, vector in enumerate((left, right)):
            near = [sum(vector[a].item() * score[a][half][key].item() for a in range(rank)) for key in range(n)]
            best.append(sorted(range(n), key=lambda key: -near[key])[: layer.topk])
        pairs = {}
        for i in best[0]:
            for j in best[1]:
                pairs[i, j] = sum(
                    score[a][0][i] * core[a, c] * score[c][1][j] for a in range(rank) for c in range(rank)
                )
        heard = layer.to_pre.weight @ x[b, s]
        total = torch.zeros(layer.out.in_features)
        for i, j in sorted(pairs, key=lambda pair: -pairs[pair].item())[: layer.topk]:
            row = layer.pool.values[i * n + j].float()
            total = total + pairs[i, j] * torch.dot(row[:d_pre], heard) * row[d_pre:]
        out[b, s] = layer.out.weight @ total
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
