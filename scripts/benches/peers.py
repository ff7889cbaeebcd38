"""Ours against every peer that runs on a CPU: one layer's training step with its optimizer.

Ours has row-wise Adagrad, conf/'s default, and lazy Adam beside it. Adam and AdamW of the others stand as documented,
with torch's defaults, and fused, which is faster and not the default.

4 heads, keys half as wide as the model, 2,048 tokens; forward, backward, step; huge pages for the tables of all.
fbgemm's table is compared on its own ground: the same reads, row-wise Adagrad, no addressing on either side.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benches.clock import Side, joined, ratio, take_turns
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer, SparseAdam

from memlayers.kernels import choose
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.layers.memory import ProductKeyMemory
from memlayers.layers.pool import MemoryPool
from memlayers.optim import LazyAdam, RowwiseAdagrad

TOKENS, HEADS, SETS = 2048, 4, 8  # sets of inputs, in turn: the cache does not hold the last one's rows
BUILDS = 2  # of every layer and table, each for as many rounds
SHAPES = [(width, bits, k) for width in (128, 256) for bits in (14, 18, 20) for k in (8, 32)]


Trained = tuple[nn.Module, list[Optimizer]]


def stepping(layer: nn.Module, optimizers: list[Optimizer], width: int, tokens: int = TOKENS) -> Side:
    """A side that takes a training step of a layer, which maps (1, tokens, width) to the same shape."""
    inputs, upstream = torch.randn(SETS, 1, tokens, width), torch.randn(1, tokens, width)
    turns = itertools.cycle(inputs)

    def run() -> None:
        out = layer(next(turns))
        (out if isinstance(out, Tensor) else out.hidden).backward(upstream)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return run


def ours(width: int, bits: int, k: int, adam: bool = False, kernels: str = "auto") -> Trained:
    fast, keys = choose(kernels), 2 ** (bits // 2)
    pool = MemoryPool(keys**2, width, read=fast.weighted_read)
    fast.huge_pages(pool.values)
    lookup = ProductKeyLookup(width, num_keys=keys, heads=HEADS, topk=k, d_key=width // 2, look_up=fast.look_up)
    for parameter in (pool.values, lookup.keys):
        nn.init.normal_(parameter, std=width**-0.5)
    rest = AdamW(lookup.parameters(), 1e-3, fused=True)
    update = (LazyAdam(lr=1e-2) if adam else RowwiseAdagrad(lr=1e-2)).build([pool.values], fast)
    pool.update = update.update_of(pool.values)
    return ProductKeyMemory(lookup, pool), [rest, update]


class BagMemory(nn.Module):
    """A memory layer in plain torch: our reference lookup, and nn.EmbeddingBag for the values."""

    def __init__(self, width: int, bits: int, k: int, sparse: bool):
        super().__init__()
        keys = 2 ** (bits // 2)
        self.lookup = ProductKeyLookup(width, num_keys=keys, heads=HEADS, topk=k, d_key=width // 2)
        nn.init.normal_(self.lookup.keys)
        self.bag = nn.EmbeddingBag(keys**2, width, mode="sum", sparse=sparse)

    def forward(self, x: Tensor) -> Tensor:
        reads = self.lookup(x)
        return self.bag(reads.slots.flatten(0, 1), per_sample_weights=reads.weights.flatten(0, 1))[None]


def bag_dense(width: int, bits: int, k: int, fused: bool | None = None) -> Trained:
    layer = BagMemory(width, bits, k, sparse=False)
    return layer, [AdamW(layer.parameters(), 1e-3, fused=fused)]


def bag_sparse(width: int, bits: int, k: int) -> Trained:
    layer = BagMemory(width, bits, k, sparse=True)
    rest = AdamW(layer.lookup.parameters(), 1e-3, fused=True)
    return layer, [rest, SparseAdam(layer.bag.parameters(), 1e-2)]


def lucidrains_pkm(width: int, bits: int, k: int, fused: bool | None = None) -> Trained:
    from product_key_memory import PKM, fetch_optimizer_parameters

    layer = nn.Sequential(PKM(dim=width, heads=HEADS, num_keys=2 ** (bits // 2), topk=k, dim_head=width // 4))
    return layer, [torch.optim.Adam(fetch_optimizer_parameters(layer), lr=1e-3, fused=fused)]


def lucidrains_peer(width: int, bits: int, k: int) -> Trained:
    from PEER_pytorch import PEER

    settings = {"heads": HEADS, "num_experts": 2**bits, "num_experts_per_head": k, "dim_key": width // 4}
    layer = PEER(dim=width, non_competing_scores=False, **settings)  # else one expert a head is left of k
    return layer, [AdamW(layer.parameters(), 1e-3, fused=True)]


def values_only(width: int, bits: int, k: int) -> dict[str, Side]:
    """Sides that read one table, run backward and row-wise Adagrad, on the same slots: ours and fbgemm's."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    fast, reads = choose("auto"), HEADS * k
    mine_slots, their_slots = (itertools.cycle(torch.randint(2**bits, (SETS, TOKENS, reads))) for _ in range(2))
    weights, upstream = torch.rand(TOKENS, reads), torch.randn(TOKENS, width)
    pool = MemoryPool(2**bits, width, read=fast.weighted_read)
    fast.huge_pages(pool.values)
    nn.init.normal_(pool.values, std=width**-0.5)
    adagrad = RowwiseAdagrad(lr=1e-2).build([pool.values], fast)
    pool.update = adagrad.update_of(pool.values)
    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(2**bits, width, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=1e-2,
        eps=1e-8,
    )
    table.init_embedding_weights_uniform(-0.1, 0.1)
    offsets = torch.arange(0, TOKENS * reads + 1, reads)

    def mine() -> None:
        pool(next(mine_slots), weights.requires_grad_()).backward(upstream)
        adagrad.step()
        adagrad.zero_grad()

    def theirs() -> None:
        table(next(their_slots).flatten(), offsets, weights.flatten().requires_grad_()).backward(upstream)

    return {"memlayers, row-wise Adagrad": mine, "fbgemm TBE, row-wise Adagrad": theirs}


LAYERS: dict[str, Callable[[int, int, int], Trained]] = {
    "memlayers, lazy Adam": partial(ours, adam=True),
    "product-key-memory + Adam": lucidrains_pkm,
    "product-key-memory + fused Adam": partial(lucidrains_pkm, fused=True),
    "PEER-pytorch (two tables) + fused AdamW": lucidrains_peer,
    "EmbeddingBag + AdamW": bag_dense,
    "EmbeddingBag + fused AdamW": partial(bag_dense, fused=True),
    "EmbeddingBag(sparse) + SparseAdam": bag_sparse,
}


def measure(rounds: int, shapes: list[tuple[int, int, int]], budget: float) -> list[dict[str, Any]]:
    """For each shape: the time of every side, and its ratio to ours.

    Each is timed in turns with ours only, as all tables together would not fit into memory; our time is the median of
    these pairs. All are built BUILDS times, as the address of a table of a gigabyte changes its speed by tens of
    percent.
    """
    entries = []
    for width, bits, k in shapes:
        times: dict[str, dict[str, Any]] = {}
        ratios, our_times = {}, []
        for name, make in LAYERS.items():
            pair = joined(
                take_turns(
                    {"memlayers": stepping(*ours(width, bits, k), width), name: stepping(*make(width, bits, k), width)},
                    rounds,
                    budget,
                )
                for _ in range(BUILDS)
            )
            our_times.append(pair["memlayers"])
            times[name], ratios[name] = pair[name], ratio(pair[name], pair["memlayers"])
        times["memlayers"] = sorted(our_times, key=lambda times_: times_["ms"])[len(our_times) // 2]
        tables = joined(take_turns(values_only(width, bits, k), rounds, budget) for _ in range(BUILDS))
        fbgemm = "fbgemm TBE, row-wise Adagrad"
        ratios[fbgemm] = ratio(tables[fbgemm], tables["memlayers, row-wise Adagrad"])
        entries.append({"width": width, "log2_slots": bits, "topk": k, "times": times | tables, "ratios": ratios})
        print(f"  width {width}, 2**{bits} slots, k {k}: {ratios}", flush=True)
    return entries


def targets(entries: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Targets as (name, value, limit), where value is to be at least limit."""
    large = [entry["ratios"] for entry in entries if entry["log2_slots"] == 20]
    triples = []
    for name in ("product-key-memory + Adam", "EmbeddingBag + AdamW"):
        if large:
            triples.append((f"ahead: {name} at 2**20 slots, least ratio", min(entry[name] for entry in large), 10.0))
    for name in (name for name in entries[0]["ratios"] if not name.startswith("memlayers")):
        triples.append(
            (f"ahead: {name}, least ratio at any shape", min(entry["ratios"][name] for entry in entries), 1.0)
        )
    return triples
