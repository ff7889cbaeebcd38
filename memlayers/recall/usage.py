"""Use of a model's tables: which slots its answers read, and recall without the tables."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memlayers.documents import chunks
from memlayers.facts.world import PAD
from memlayers.layers.pool import MemoryPool
from memlayers.model import Transformer
from memlayers.recall.ask import CHUNK, ask, evaluation
from memlayers.text import Text


def tables(model: Transformer, text: Text, facts: Tensor) -> dict[str, Any] | None:
    """Read-outs of the tables, over the facts (b, 2) as asked in training; None for a model without any.

    without: recall of the trained model with every read set to zero.
    usage: `usage_of` for each layer that reads a table, by place.
    """
    if not model.tables():
        return None
    with silent(model):
        without = ask(model, text, facts, "training").exact
    read = read_weights(model, text, facts)
    return {
        "without": float(without.double().mean()),
        "usage": {place: usage_of(weights) for place, weights in read.items()},
    }


@contextmanager
def silent(model: Transformer) -> Iterator[None]:
    """Context in which every read of a table is zero."""
    try:
        for pool in model.tables():
            pool.is_silent = True
        yield
    finally:
        for pool in model.tables():
            pool.is_silent = False


@torch.no_grad()
def read_weights(model: Transformer, text: Text, facts: Tensor) -> dict[str, Tensor]:
    """By place of the layer, the sum of absolute weights with which each slot (n,) was read, without padding."""
    device = model.embedding.weight.device
    probe = text.probe(facts, "training", torch.Generator().manual_seed(0))
    total: dict[str, Tensor] = {}
    with evaluation(model):
        for part in chunks(probe, CHUNK) if len(probe.subject) else ():
            tokens, following = part.documents.tokens[:, :-1].to(device), part.documents.tokens[:, 1:].to(device)
            real = (following != PAD)[..., None]  # positions with a next token to predict
            for place, reads in model(tokens, torch.zeros_like(tokens, dtype=torch.bool)).reads.items():
                if place not in total:
                    total[place] = torch.zeros(len(pool_at(model, place).values), dtype=torch.float64, device=device)
                weights = (
                    (reads.weights.abs() * real).double().flatten()
                )  # weights of experts and of UltraMemV2 may be negative
                total[place].index_add_(0, reads.slots.flatten(), weights)
    return total


def layer_at(model: Transformer, place: str) -> nn.Module:
    """The layer at a place such as 0.ffn, or 0.ffn.2 for its second pass."""
    block, name = place.split(".")[:2]
    layer: nn.Module = getattr(model.blocks[int(block)], name)
    return layer


def pool_at(model: Transformer, place: str) -> MemoryPool:
    """The pool that the layer at a place reads."""
    return next(pool for pool in layer_at(model, place).modules() if isinstance(pool, MemoryPool))


def usage_of(weights: Tensor) -> dict[str, float]:
    """Statistics of the summed weights (n,) of slots: their number, the share that was ever read, and the KL divergence
    of the weights from uniform in nats, from 0 to log n (Lample et al. 2019, section 4.5).
    """
    share = weights / weights.sum().clamp(min=torch.finfo(torch.float64).tiny)
    divergence = math.log(len(share)) + float(torch.special.xlogy(share, share).sum())
    return {"slots": len(share), "used": float((weights > 0).double().mean()), "kl": max(0.0, divergence)}
