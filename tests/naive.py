"""Every algorithm again, with loops, one token and one slot at a time: slow and obvious. The tests compare with these.

A twin of a layer takes the layer, for its parameters, x (b, s, d_model) and tokens (b, s). Autograd goes through the
loops. Which twin belongs to which layer stands in contract.py. Twins of layers that look at tokens are in
naive_tables.py, those of experts in naive_experts.py.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from memlayers.layers.attention import Attention
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.feedforward import FeedForward
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.layers.memory import GatedMemory, ProductKeyMemory
from memlayers.layers.short_conv import ShortConvolution
from memlayers.model import Transformer

Twin = Callable[[FeedForward, Tensor, Tensor], Tensor]


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


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def dense(layer: DenseFeedForward, x: Tensor, tokens: Tensor) -> Tensor:
    """down(silu(gate) * up), or down(gelu(up)) of a layer without a gate, one hidden unit at a time."""
    hidden = layer.down.weight.shape[1]
    out = torch.zeros_like(x)
    for b, s in positions(x):
        for unit in range(hidden):
            first = torch.dot(layer.up.weight[unit], x[b, s])
            value = silu(first) * torch.dot(layer.up.weight[hidden + unit], x[b, s]) if layer.gated else gelu(first)
            out[b, s] += value * layer.down.weight[:, unit]
    return out


def lookup(layer: ProductKeyLookup, x: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """Every read as (batch, position, slot, weight), from the scores of all slots; as in evaluation."""
    heads, _, n, width = layer.keys.shape
    gains, batch = layer.gains or (None, None), layer.batch_norm
    reads = []
    for b, s in positions(x):
        query = layer.to_query.weight @ x[b, s]
        if batch is not None:
            query = (query - batch.mean) / torch.sqrt(batch.variance + 1e-5) * batch.gain + batch.bias
        query = query.view(heads, 2, width)
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
            if layer.sink_bias is not None:
                total = total + torch.exp(layer.sink_bias[h])
            for slot in best:
                weight = {
                    "sigmoid": 1 / (1 + torch.exp(-scores[slot])),
                    "relu": scores[slot].clamp(min=0),
                }.get(layer.score, torch.exp(scores[slot]) / total)
                reads.append((b, s, slot, weight))
    return reads


def memory(layer: ProductKeyMemory | GatedMemory, x: Tensor, tokens: Tensor) -> Tensor:
    """The weighted values of all heads, added up; gated where the layer has a gate."""
    read = torch.zeros(*x.shape[:2], layer.pool.values.shape[1])
    for b, s, slot, weight in lookup(layer.lookup, x):
        read[b, s] += weight * layer.pool.values[slot].float()
    if isinstance(layer, ProductKeyMemory):
        return read
    out = torch.zeros_like(x)
    for b, s in positions(x):
        out[b, s] = layer.out.weight @ (silu(layer.gate.weight @ x[b, s]) * read[b, s])
    return out


def short_convolution(layer: ShortConvolution, x: Tensor, tokens: Tensor) -> Tensor:
    """x and, of each position up to width - 1 before, x there times the weight of that distance, channel by channel."""
    width, out = layer.weight.shape[1], x.clone()
    for b, s in positions(x):
        for back in range(min(width, s + 1)):
            out[b, s] += layer.weight[:, width - 1 - back] * x[b, s - back]
    return out


def rotate(x: Tensor, position: int) -> Tensor:
    """Turn each pair of channels (i, i + c/2) of one head (c,) by position * 10000 ** (-2 i / c)."""
    half = len(x) // 2
    out = x.clone()
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[half + i] * math.sin(angle)
        out[half + i] = x[i] * math.sin(angle) + x[half + i] * math.cos(angle)
    return out


def attention(layer: Attention, x: Tensor, added: Tensor | None = None) -> Tensor:
    """Each position looks at itself and at those before it, head by head; `added` is added to values."""
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
                own = value[mine] @ x[b, u]
                mixed[b, s, mine] += weight * (own if added is None else own + added[b, u, mine])
    return mixed @ layer.out.weight.T


def transformer(model: Transformer, tokens: Tensor, twin: Twin) -> Tensor:
    """Logits of all positions: tokens (b, s) -> (b, s, vocabulary); `twin` is that of any layer."""
    x = model.embedding.weight[tokens]
    for block in [*model.blocks] * model.loops:
        if block.residual is not None:
            x = x + twin(block.residual, x, tokens)
        heard = norm_all(block.attention_norm, x)
        if block.before_attention is not None:
            heard = twin(block.before_attention, heard, tokens)
        added = None if block.values is None else twin(block.values, heard, tokens)
        x = x + attention(block.attention, heard, added)
        heard = norm_all(block.ffn_norm, x)
        if block.before_ffn is not None:
            heard = twin(block.before_ffn, heard, tokens)
        x = x + twin(block.ffn, heard, tokens) + (0 if block.beside is None else twin(block.beside, heard, tokens))
    head = model.embedding if model.head is None else model.head
    return norm_all(model.norm, x) @ head.weight.T


def norm_all(layer: nn.Module, x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for b, s in positions(x):
        out[b, s] = norm(x[b, s], layer.weight)
    return out


def positions(x: Tensor) -> list[tuple[int, int]]:
    return [(b, s) for b in range(x.shape[0]) for s in range(x.shape[1])]
