"""Layers whose address is made of tokens, with loops: n-grams, Engram, the oracle, STEM and per-layer embeddings."""

import torch
from naive import gelu, norm, positions, silu
from torch import Tensor

from memlayers.layers.engram import GatedNGrams
from memlayers.layers.ngram import NGramTable
from memlayers.layers.oracle import FactTable
from memlayers.layers.ple import PerLayerEmbedding
from memlayers.layers.stem import TokenGLU


def ngram(layer: NGramTable, x: Tensor, tokens: Tensor) -> Tensor:
    """The mean of one row a hash; without hashes, the row of the token."""
    out = torch.zeros_like(x)
    for b, s in positions(x):
        for which in range(layer.hashes):
            slot = int(tokens[b, s])
            if layer.by_hash:
                slot = hashed(tokens[b, : s + 1].tolist(), layer.n, which, len(layer.pool.values))
            out[b, s] += layer.pool.values[slot].float() / layer.hashes
    return out


def hashed(tokens: list[int], n: int, which: int, size: int) -> int:
    """The slot of the last n tokens by one hash, the last token first; missing ones are -1. Integers of 64 bits."""
    state = wrapped((which + 1) * 0x9E3779B97F4A7C1)
    for back, token in enumerate((tokens[::-1] + [-1] * n)[:n]):
        state = wrapped((state ^ (token + 1 + back)) * 0xBF58476D1CE4E5B9)
        state ^= state >> 27
    return (wrapped(state * 0x94D049BB133111EB) >> 16) % size


def wrapped(number: int) -> int:
    """The signed integer of 64 bits that is left of one of any size."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def engram(layer: GatedNGrams, x: Tensor, tokens: Tensor) -> Tensor:
    """Rows of all n-grams side by side, mapped to the model's width, gated, and with earlier ones mixed in."""
    made = torch.zeros_like(x)
    part = len(layer.pool.values) // layer.rows
    for b, s in positions(x):
        rows = []
        for order in layer.orders:
            for which in range(layer.hashes):
                slot = len(rows) * part + hashed(tokens[b, : s + 1].tolist(), order, which, part)
                rows.append(layer.pool.values[slot].float())
        read = torch.cat(rows)
        gate = torch.ones(())
        if layer.to_key is not None:
            key, heard = norm(layer.to_key.weight @ read, layer.key_norm.weight), norm(x[b, s], layer.norm.weight)
            agreement = torch.dot(key, heard) / len(key) ** 0.5
            gate = 1 / (1 + torch.exp(-agreement.sign() * agreement.abs().clamp(min=1e-6).sqrt()))
        made[b, s] = gate * (layer.to_value.weight @ read)
    if layer.taps is None:
        return made
    out = made.clone()
    for b, s in positions(x):
        mixed = torch.zeros(x.shape[-1])
        for tap in range(layer.taps.weight.shape[1]):
            earlier = s - tap * max(layer.orders)
            if earlier >= 0:
                mixed = mixed + layer.taps.weight[:, tap] * norm(made[b, earlier], layer.conv_norm.weight)
        out[b, s] = made[b, s] + silu(mixed)
    return out


def oracle(layer: FactTable, x: Tensor, tokens: Tensor, questions: Tensor) -> Tensor:
    """The row of the question that the document began with, the longest of several; nothing before its end."""
    asked = [[token for token in row if token] for row in questions.tolist()]
    out = torch.zeros_like(x)
    for b, s in positions(x):
        for end in range(1, s + 2):
            begun = tokens[b, :end].tolist()
            if begun in asked:
                out[b, s] = layer.pool.values[1 + asked.index(begun)].float()
    return out


def stem(layer: TokenGLU, x: Tensor, tokens: Tensor) -> Tensor:
    """One hidden unit at a time: its gate times the token's number for it."""
    out = torch.zeros_like(x)
    for b, s in positions(x):
        row = layer.pool.values[int(tokens[b, s])].float()
        for unit, number in enumerate(row):
            out[b, s] += silu(torch.dot(layer.gate.weight[unit], x[b, s])) * number * layer.down.weight[:, unit]
    return out


def ple(layer: PerLayerEmbedding, x: Tensor, tokens: Tensor) -> Tensor:
    """The numbers of the token's row, each as loud as the stream lets it be, mapped to the stream and normed."""
    out = torch.zeros_like(x)
    for b, s in positions(x):
        total = torch.zeros(x.shape[-1])
        for unit, number in enumerate(layer.pool.values[int(tokens[b, s])].float()):
            total = total + gelu(torch.dot(layer.gate.weight[unit], x[b, s])) * number * layer.up.weight[:, unit]
        out[b, s] = norm(total, layer.norm.weight)
    return out
