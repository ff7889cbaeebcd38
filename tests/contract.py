"""Small settings of every layer, and its twin of loops: a new layer is under test once it has an entry here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import naive
import naive_experts
import naive_tables
import torch
from stubs import seeded
from torch import Tensor, nn

from memlayers.config import ModelConfig
from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers import PLE, Dense, Engram, Memory, MoE, NGram, Oracle, Peer, ShortConv, Stem, UltraMemV2
from memlayers.layers.beside import Beside
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.feedforward import FeedForward
from memlayers.layers.site import Site
from memlayers.model import Transformer, build_model
from memlayers.optim.rules import SGD, LazyAdam, RowwiseAdagrad

D_MODEL, HIDDEN, NUM_TOKENS = 8, 12, 11
SMALL = Memory(num_keys=5, heads=2, topk=3, d_key=4)
# What an oracle is asked: some first tokens, and every pair that begins a document.
QUESTIONS = torch.cat(
    [
        torch.tensor([[4, 0], [7, 0], [9, 0]]),
        torch.cartesian_prod(torch.arange(1, NUM_TOKENS), torch.arange(1, NUM_TOKENS)),
    ]
)


@dataclass
class Ungated(Dense):
    """As every dense feed-forward of a model with gated=False."""

    def build(self, site: Site) -> FeedForward:
        return super().build(replace(site, gated=False))


@dataclass
class UngatedMoE(MoE):
    """As in a model with gated=False."""

    def build(self, site: Site) -> FeedForward:
        return super().build(replace(site, gated=False))


@dataclass(frozen=True)
class Entry:
    """A twin takes the layer, for its parameters, x (b, s, d_model) and tokens (b, s); it returns what hidden is."""

    twin: Callable[[Any, Tensor, Tensor], Tensor]
    settings: dict[str, Any]
    reach: Callable[[Any], int] = lambda settings: 0  # positions after its own that a token can change
    always: bool = True  # a token changes all that it reaches
    width: Callable[[Any], int] = lambda settings: D_MODEL  # of the rows of the pool
    rounding: float = 0.0  # what other tokens change: products of as many rows as come together round differently


CONTRACT: dict[type, Entry] = {
    Dense: Entry(naive.dense, {"": Dense(), "without gate": Ungated()}),
    Memory: Entry(
        naive.memory,
        {
            "own": SMALL,
            "shared": replace(SMALL, pool="shared"),
            "own gate": replace(SMALL, gate=True),
            "shared gate": replace(SMALL, pool="shared", gate=True),
            "narrow values": replace(SMALL, gate=True, d_value=6),
            "random": replace(SMALL, learned=False),
            "random gate": replace(SMALL, learned=False, gate=True),
            "without norm": replace(SMALL, d_key=None, norm="none"),
            "batch norm": replace(SMALL, norm="batch"),
            "sink": replace(SMALL, score="sink", gate=True),
            "sigmoid": replace(SMALL, score="sigmoid", norm="none"),
            "relu": replace(SMALL, score="relu"),
            "bfloat16": replace(SMALL, value_dtype="bfloat16"),
        },
        width=lambda settings: settings.d_value or D_MODEL,
    ),
    NGram: Entry(
        naive_tables.ngram,
        {
            "own": NGram(n=2, num_slots=100, hashes=3),
            "shared": NGram(n=3, num_slots=64, hashes=2, pool="shared"),
            "of one": NGram(n=1, num_slots=30, hashes=1),
            "a row a token": NGram(n=1, num_slots=None, hashes=1),
            "bfloat16": NGram(n=2, num_slots=50, hashes=2, value_dtype="bfloat16"),
        },
        lambda settings: settings.n - 1,
    ),
    Peer: Entry(
        naive_experts.peer,
        {
            "own": Peer(num_keys=5, heads=2, topk=3, d_key=4),
            "shared": Peer(num_keys=5, heads=1, topk=2, pool="shared"),
            "without norm": Peer(num_keys=4, heads=1, topk=3, norm="none"),
            "batch norm": Peer(num_keys=5, heads=2, topk=3, norm="batch", score="relu"),
            "bfloat16": Peer(num_keys=5, heads=2, topk=3, value_dtype="bfloat16"),
        },
        width=lambda settings: 2 * D_MODEL,
    ),
    UltraMemV2: Entry(
        naive_experts.ultramem,
        {
            "own": UltraMemV2(num_keys=5, topk=3, d_key=4, d_row=8),
            "shared": UltraMemV2(num_keys=4, topk=4, rank=3, pool="shared", d_row=9),
            "of rank one": UltraMemV2(num_keys=6, topk=2, rank=1, d_row=8),
            "bfloat16": UltraMemV2(num_keys=5, topk=3, d_row=8, value_dtype="bfloat16"),
        },
        width=lambda settings: settings.d_row,
    ),
    MoE: Entry(
        naive_experts.moe,
        {
            "": MoE(experts=5, topk=2, hidden=3),
            "of one": MoE(experts=4, topk=1, hidden=5, balance_loss=0.0),
            "all": MoE(experts=3, topk=3, hidden=2),
            "shared": MoE(experts=4, topk=2, hidden=3, shared=2),
            "biased": MoE(experts=6, topk=2, hidden=3, balance_loss=0.0, balance_step=0.1),
            "without gate": UngatedMoE(experts=4, topk=2, hidden=3, shared=1, balance_step=0.1),
        },
        rounding=1e-5,
    ),
    Stem: Entry(
        naive_tables.stem,
        {"own": Stem(), "shared": Stem(pool="shared"), "bfloat16": Stem(value_dtype="bfloat16")},
        width=lambda settings: HIDDEN,
    ),
    Engram: Entry(
        naive_tables.engram,
        {
            "own": Engram([2, 3], hashes=2, num_slots=40),
            "shared": Engram([2], hashes=2, num_slots=40, pool="shared"),
            "without gate": Engram([1, 3], hashes=1, num_slots=300, gate=False),
            "without convolution": Engram([3, 2], hashes=2, num_slots=40, convolution=False),
            "bare": Engram([2], hashes=3, num_slots=40, gate=False, convolution=False),
        },
        lambda settings: max(settings.orders) - 1 + (3 * max(settings.orders) if settings.convolution else 0),
        width=lambda settings: D_MODEL // (len(settings.orders) * settings.hashes),
    ),
    PLE: Entry(
        naive_tables.ple,
        {
            "own": PLE(d_row=12),
            "shared": PLE(d_row=3, pool="shared"),
            "of Gemma's width": PLE(),
            "bfloat16": PLE(d_row=12, value_dtype="bfloat16"),
        },
        width=lambda settings: settings.d_row or D_MODEL // 8,
    ),
    Oracle: Entry(
        lambda layer, x, tokens: naive_tables.oracle(layer, x, tokens, QUESTIONS),
        {"own": Oracle(), "shared": Oracle(pool="shared"), "bfloat16": Oracle(value_dtype="bfloat16")},
        lambda settings: 1_000,  # to the end of the document
        always=False,
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
    return Site(D_MODEL, HIDDEN, NUM_TOKENS, kernels, sparse, questions=QUESTIONS)


def entry_of(settings: Any) -> Entry:
    return next(entry for kind, entry in CONTRACT.items() if isinstance(settings, kind))


TWINS = {type(one.build(site())): entry_of(one).twin for one in CASES.values()}


def twin(layer: FeedForward, x: Tensor, tokens: Tensor) -> Tensor:
    """What the layer returns as hidden, by loops."""
    if isinstance(layer, Beside):
        return twin(layer.dense, x, tokens) + twin(layer.layer, x, tokens)
    return TWINS[type(layer)](layer, x, tokens)


def beside(settings: Any, where: Site) -> Beside:
    return Beside(DenseFeedForward(where.d_model, where.hidden), settings.build(where))


def build(ffn: Any = None, seed: int = 0, sparse: bool = True, **changes: Any) -> Transformer:
    """A transformer; `sparse` is whether gradients of tables are."""
    sizes = {"d_model": D_MODEL, "depth": 2, "hidden": HIDDEN}
    config = ModelConfig(**{"ffn": ffn or Dense(), "blocks": "all"} | sizes | changes)
    config.validate()
    return build_model(config, NUM_TOKENS, seeded(seed), sparse=sparse, questions=QUESTIONS)


def drawn(module: nn.Module) -> nn.Module:
    """In evaluation, with parameters and running averages away from where they start: filters are zero there."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return module.eval()


def random_tokens(*shape: int) -> Tensor:
    return torch.randint(NUM_TOKENS, shape)


# Rules of value tables that step on the rows that were read; a new one is under test once it stands here.
RULES = {
    "lazy_adam": LazyAdam(lr=0.1),
    "rowwise_adam": LazyAdam(lr=0.1, rowwise=True),
    "rowwise_adagrad": RowwiseAdagrad(lr=0.1),
    "sgd": SGD(lr=0.1),
}
