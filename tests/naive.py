"""Every algorithm again, with loops, one token and one slot at a time: slow and obvious. The tests compare with these.

A twin of a layer takes the layer, for its parameters, and x (b, s, d_model). Autograd goes through the loops.
"""

import math

import torch
from torch import Tensor, nn

from memlayers.layers.attention import Attention
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.memory import ProductKeyLookup, ProductKeyMemory
from memlayers.layers.memory_plus import MemoryPlus
from memlayers.model import Transformer


def all_scores(query: Tensor, keys: Tensor) -> Tensor:
    """Scores of all n * n slots: query (t, h, two, c), keys (h, two, n, c) -> (t, h, n * n)."""
    tokens, heads, _, _ = query.shape
    n = keys.shape[2]
    scores = [
        torch.dot(query[t, h, 0], keys[h, 0, slot // n]) + torch.dot(query[t, h, 1], keys[h, 1, slot % n])
        for t in range(tokens)
        for h in range(heads)
        for slot in range(n * n)
    ]
    return torch.stack(scores).view(tokens, heads, n * n) if scores else query.new_zeros(tokens, heads, n * n)


def weighted_read(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """slots (t, r), weights (t, r) -> (t, d_value)."""
    out = []
    for token_slots, token_weights in zip(slots, weights, strict=True):
        total = torch.zeros(values.shape[1], dtype=weights.dtype)
        for slot, weight in zip(token_slots.tolist(), token_weights, strict=True):
            total = total + weight * values[slot].to(weights.dtype)
        out.append(total)
    return torch.stack(out) if out else weights.new_zeros(0, values.shape[1])


def norm(x: Tensor, gain: Tensor | None) -> Tensor:
    """RMSNorm of one vector, or without a gain the vector itself."""
    if gain is None:
        return x
    mean_square = sum(value * value for value in x) / len(x)
    return x / torch.sqrt(mean_square + torch.finfo(x.dtype).eps) * gain


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def swiglu(layer: SwiGLU, x: Tensor) -> Tensor:
    """down(silu(gate) * up), one hidden unit at a time."""
    hidden = layer.down.weight.shape[1]
    out = torch.zeros_like(x)
    for b, s in positions(x):
        for unit in range(hidden):
            gate = torch.dot(layer.up.weight[unit], x[b, s])
            up = torch.dot(layer.up.weight[hidden + unit], x[b, s])
            out[b, s] += silu(gate) * up * layer.down.weight[:, unit]
    return out


def lookup(layer: ProductKeyLookup, x: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """Every read as (batch, position, slot, weight), from the scores of all slots."""
    heads, _, n, width = layer.keys.shape
    gains = layer.gains or (None, None)
    reads = []
    for b, s in positions(x):
        query = (layer.to_query.weight @ x[b, s]).view(heads, 2, width)
        for h in range(heads):
            scores = []
            for slot in range(n * n):
                score = torch.zeros(())
                for half, key in enumerate((slot // n, slot % n)):
                    normed = norm(query[h, half], gains[0]), norm(layer.keys[h, half, key], gains[1])
                    score = score + torch.dot(*normed) / math.sqrt(width)
                scores.append(score)
            best = sorted(range(n * n), key=lambda slot: -scores[slot].item())[: layer.topk]
            total = sum(torch.exp(scores[slot]) for slot in best)
            reads += [(b, s, slot, torch.exp(scores[slot]) / total) for slot in best]
    return reads


def product_key_memory(layer: ProductKeyMemory | MemoryPlus, x: Tensor) -> Tensor:
    """The weighted values of all heads, added up: (b, s, d_value)."""
    out = torch.zeros(*x.shape[:2], layer.pool.values.shape[1])
    for b, s, slot, weight in lookup(layer.lookup, x):
        out[b, s] += weight * layer.pool.values[slot]
    return out


def memory_plus(layer: MemoryPlus, x: Tensor) -> Tensor:
    read, out = product_key_memory(layer, x), torch.zeros_like(x)
    for b, s in positions(x):
        out[b, s] = layer.out.weight @ (silu(layer.gate.weight @ x[b, s]) * read[b, s])
    return out


def beside(layer: Beside, x: Tensor) -> Tensor:
    return feed_forward(layer.dense, x) + feed_forward(layer.memory, x)


def feed_forward(layer: object, x: Tensor) -> Tensor:
    twins = {SwiGLU: swiglu, ProductKeyMemory: product_key_memory, MemoryPlus: memory_plus, Beside: beside}
    return twins[type(layer)](layer, x)


def rotate(x: Tensor, position: int) -> Tensor:
    """Turn each pair of channels (i, i + c/2) of one head (c,) by position * 10000 ** (-2 i / c)."""
    half = len(x) // 2
    out = x.clone()
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[half + i] * math.sin(angle)
        out[half + i] = x[i] * math.sin(angle) + x[half + i] * math.cos(angle)
    return out


def attention(layer: Attention, x: Tensor) -> Tensor:
    """Each position looks at itself and at those before it, head by head."""
    d_model = x.shape[-1]
    width = d_model // layer.num_heads
    mixed = torch.zeros_like(x)
    for b, s in positions(x):
        for h in range(layer.num_heads):
            mine = slice(h * width, (h + 1) * width)
            query, key, value = layer.to_qkv.weight.split(d_model)
            asked = rotate(query[mine] @ x[b, s], s)
            scores = [torch.dot(asked, rotate(key[mine] @ x[b, u], u)) / math.sqrt(width) for u in range(s + 1)]
            for u, weight in enumerate(torch.stack(scores).softmax(dim=0)):
                mixed[b, s, mine] += weight * (value[mine] @ x[b, u])
    return mixed @ layer.out.weight.T


def transformer(model: Transformer, tokens: Tensor) -> Tensor:
    """Logits of all positions: tokens (b, s) -> (b, s, vocabulary)."""
    x = model.embedding.weight[tokens]
    for block in model.blocks:
        x = x + attention(block.attention, norm_all(block.attention_norm, x))
        x = x + feed_forward(block.ffn, norm_all(block.ffn_norm, x))
    head = model.embedding if model.head is None else model.head
    return norm_all(model.norm, x) @ head.weight.T


def norm_all(layer: nn.Module, x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for b, s in positions(x):
        out[b, s] = norm(x[b, s], layer.weight)
    return out


def positions(x: Tensor) -> list[tuple[int, int]]:
    return [(b, s) for b in range(x.shape[0]) for s in range(x.shape[1])]
