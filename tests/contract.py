"""Small settings of every layer, and its twin of loops: a new layer is under test once it has an entry here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import naive
import torch
from torch import Tensor, nn

from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers import Dense, Memory, NGram, ShortConv
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.feedforward import FeedForward
from memlayers.layers.site import Site
from memlayers.optim.rules import SGD, LazyAdam, RowwiseAdagrad

D_MODEL, HIDDEN, NUM_TOKENS = 8, 12, 11
SMALL = Memory(num_keys=5, heads=2, topk=3, d_key=4)


@dataclass(frozen=True)
class Entry:
    """A twin takes the layer, for its parameters, x (b, s, d_model) and tokens (b, s); it returns what hidden is."""

    twin: Callable[[Any, Tensor, Tensor], Tensor]
    settings: dict[str, Any]
    reach: Callable[[Any], int] = lambda settings: 0  # positions after its own that a token changes


CONTRACT: dict[type, Entry] = {
    Dense: Entry(naive.swiglu, {"": Dense()}),
    Memory: Entry(
        naive.memory,
        {
            "own": SMALL,
            "shared": replace(SMALL, pool="shared"),
            "own gate": replace(SMALL, gate=True),
            "shared gate": replace(SMALL, pool="shared", gate=True),
            "without norm": replace(SMALL, d_key=None, qk_norm=False),
            "bfloat16": replace(SMALL, value_dtype="bfloat16"),
        },
    ),
    NGram: Entry(
        naive.ngram,
        {
            "own": NGram(n=2, num_slots=100, hashes=3),
            "shared": NGram(n=3, num_slots=64, hashes=2, pool="shared"),
            "of one": NGram(n=1, num_slots=30, hashes=1),
            "bfloat16": NGram(n=2, num_slots=50, hashes=2, value_dtype="bfloat16"),
        },
        lambda settings: settings.n - 1,
    ),
    ShortConv: Entry(
        naive.short_convolution,
        {"": ShortConv(3), "of one": ShortConv(1), "longer than documents": ShortConv(8)},
        lambda settings: settings.width - 1,
    ),
}
CASES = {
    f"{kind.__name__} {name}".strip(): one for kind, entry in CONTRACT.items() for name, one in entry.settings.items()
}
FIRST = [next(name for name, settings in CASES.items() if type(settings) is kind) for kind in CONTRACT]
TABLES = {name: settings for name, settings in CASES.items() if hasattr(settings, "pool")}


def site(sparse: bool = True, kernels: Kernels = REFERENCE) -> Site:
    return Site(D_MODEL, HIDDEN, NUM_TOKENS, kernels, sparse)


def reach(settings: Any) -> int:
    return CONTRACT[type(settings)].reach(settings)


TWINS = {type(one.build(site())): CONTRACT[type(one)].twin for one in CASES.values()}


def twin(layer: FeedForward, x: Tensor, tokens: Tensor) -> Tensor:
    """What the layer returns as hidden, by loops."""
    if isinstance(layer, Beside):
        return twin(layer.dense, x, tokens) + twin(layer.layer, x, tokens)
    return TWINS[type(layer)](layer, x, tokens)


def beside(settings: Any, where: Site) -> Beside:
    return Beside(SwiGLU(where.d_model, where.hidden), settings.build(where))


def drawn(module: nn.Module) -> nn.Module:
    """With parameters away from where they start: embeddings are small there, and filters zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return module


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(NUM_TOKENS, shape)


# Rules of value tables that step on the rows that were read; a new one is under test once it stands here.
RULES = {
    "lazy_adam": LazyAdam(lr=0.1),
    "rowwise_adam": LazyAdam(lr=0.1, rowwise=True),
    "rowwise_adagrad": RowwiseAdagrad(lr=0.1),
    "sgd": SGD(lr=0.1),
}
