"""Compute of a model, and the solver that gives a dense arm the size at which it costs what a memory arm costs."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from memlayers.config import MatchConfig, ModelConfig
from memlayers.layers.feedforward import Cost, Workload
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import wire_bytes
from memlayers.model import Transformer, build_model


class Rule(Protocol):
    """Of value tables: optim/rules.py."""

    def state_bytes(self, d_value: int, bytes_each: int) -> int: ...


@dataclasses.dataclass(frozen=True)
class Matched:
    """What the solver chose, and how near it came."""

    model: ModelConfig
    steps: float  # multiplies the number of steps: 1 unless compute is spent by training longer
    cost: Cost
    target: float  # training FLOPs per token, or stored parameters, that were asked for
    reached: float


def solve(
    config: ModelConfig,
    match: MatchConfig,
    num_tokens: int,
    work: Workload,
    sparse: bool = True,
    questions: Tensor | None = None,
) -> Matched:
    """The model `config`, resized until it costs `match.times` what it would with the reference feed-forward alone:
    with gated dense feed-forwards and no layer in other places, so that all arms meet one cost.

    Spent by `width`, d_model and hidden grow in proportion; by `depth`, blocks are added; by `both`, there are
    times ** (1/3) as many blocks, and width takes the rest; then, and by `hidden` alone,
    the width of the feed-forwards trims the rest, so that the match is as near as one hidden unit allows, or as the
    multiples that hidden is to be one of.
    Raises ValueError where even the smallest model costs more, or no block has a dense feed-forward to trim.
    """
    spend = match.way(config)
    longer = spend == "longer"
    size = (lambda cost: cost.params) if match.by == "params" else (lambda cost: cost.flops)

    def cost(model: ModelConfig) -> Cost:
        return model_cost(model, num_tokens, work, sparse, questions)

    if match.reference is None:
        found = cost(config)
        return Matched(config, 1.0, found, size(found), size(found))

    plain: dict[str, Any] = {"gated": True, "residual": None, "values": None, "before": None}
    # With sparse gradients, too, whatever the rule of this arm's own tables.
    plainly = dataclasses.replace(config, ffn=match.reference, **plain)
    reference = size(model_cost(plainly, num_tokens, work, questions=questions))
    target = reference * (1 if longer else match.times)

    def grown(**changes: Any) -> ModelConfig:
        return dataclasses.replace(config, **changes)

    def nearest(make: Callable[[int], ModelConfig], least: int = 1) -> ModelConfig:
        low, high = least, least
        while size(cost(make(high))) < target:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if size(cost(make(middle))) < target else (low, middle)
        return min((make(low), make(high)), key=lambda model: abs(size(cost(model)) - target))

    if spend == "both":
        config = grown(depth=max(1, round(config.depth * match.times ** (1 / 3))))
    if spend in ("width", "both"):
        step = 2 * config.num_heads  # heads keep an even width
        ratio = config.hidden / config.d_model
        config = nearest(lambda n: grown(d_model=n * step, hidden=max(1, round(ratio * n * step))))
    elif spend == "depth":
        config = nearest(lambda n: grown(depth=n), max(config.blocks) + 1 if isinstance(config.blocks, list) else 1)
    multiple = match.multiple_of
    unit = size(cost(grown(hidden=2 * multiple))) - size(cost(grown(hidden=multiple)))
    if not unit and size(cost(config)) != target:
        raise ValueError(
            f"match.spend={spend}: no block has a dense feed-forward whose width could trim the rest; "
            "accepted: model.blocks that leave one, or model.placement=add"
        )
    model = nearest(lambda n: grown(hidden=n * multiple)) if unit else config
    found = cost(model)
    if size(found) - target > unit / 2:
        least = math.ceil(100 * match.times * size(found) / target) / 100
        key = "spend=longer" if longer else f"times={match.times}"
        raise ValueError(
            f"match.{key}: the smallest model costs {size(found):.4g} {match.by}, more than the {target:.4g} "
            f"asked for; accepted: {'width, hidden or depth' if longer else f'{least:.2f} or more'}"
            + (f", or less than match.multiple_of={multiple}" if multiple > 1 else "")
        )
    return Matched(model, match.times if longer else 1.0, found, target, size(found))


def model_cost(
    config: ModelConfig, num_tokens: int, work: Workload, sparse: bool = True, questions: Tensor | None = None
) -> Cost:
    """Cost of a model that is never allocated."""
    with torch.device("meta"):
        return build_model(config, num_tokens, sparse=sparse, questions=questions).cost(work)


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several processes at a run holds, and sends to the others in a step."""

    table_bytes: int
    state_bytes: int  # of the tables' rule
    other_bytes: int  # all other parameters, their gradients and AdamW's two moments
    sent_bytes: float


def share_of(
    config: ModelConfig, num_tokens: int, work: Workload, rule: Rule, ranks: int, questions: Tensor | None = None
) -> Share:
    """Of a model whose tables are sharded over `ranks` processes, of which each has its part of the `work.tokens`.

    Counted: what tables exchange (layers/sharded_pool.py), with a number of four bytes for each row that a step may
    read, and the gradients of all else, summed in a ring.
    """
    with torch.device("meta"):
        model = build_model(config, num_tokens, questions=questions).to("meta")
        tokens = torch.zeros(1, 4, dtype=torch.long)
    tables = model.tables()
    reads = [(pool, *count) for pool in tables for count in reads_of(model, tokens, pool)]
    size = sum(pool.values.numel() * pool.values.element_size() for pool in tables)
    state = sum(len(pool.values) * rule.state_bytes(pool.d_value, pool.values.element_size()) for pool in tables)
    others = sum(p.numel() for p in model.parameters()) - sum(pool.values.numel() for pool in tables)
    each, ring = round(work.tokens / ranks), 2 * (ranks - 1) / ranks
    sent = ring * 4 * others
    for pool, sums, count in reads:
        sent += wire_bytes(each * sums, count, pool.d_value, ranks)
        sent += ring * 4 * min(len(pool.values), work.tokens * sums * count)
    return Share(size // ranks, state // ranks, 16 * others, sent)


def reads_of(model: Transformer, tokens: Tensor, pool: MemoryPool) -> list[tuple[int, int]]:
    """Of each layer that reads this table: how many sums it asks for a token, and of how many rows each."""
    found: list[tuple[int, int]] = []

    def rows(slots: Tensor) -> Tensor:  # each a sum of its own
        found.append((slots.numel() // tokens.numel(), 1))
        return MemoryPool.rows(pool, slots)

    hook = pool.register_forward_pre_hook(lambda _, given: found.append((1, given[0].shape[1])))
    pool.rows = rows  # type: ignore[method-assign]
    model(tokens)
    hook.remove()
    del pool.rows
    return found


def refuse_too_large(config: ModelConfig, num_tokens: int, rule: Rule, questions: Tensor | None = None) -> None:
    """Raises ValueError, before anything is allocated, for tables that with their state do not fit into memory."""
    with torch.device("meta"):
        tables = [pool.values for pool in build_model(config, num_tokens, questions=questions).tables()]
    size = sum(table.numel() * table.element_size() for table in tables)
    state = sum(len(table) * rule.state_bytes(table.shape[1], table.element_size()) for table in tables)
    free = available_memory()
    if size + state > free:
        rows = sum(len(table) for table in tables)
        raise ValueError(
            f"model: value tables of {size / 2**30:.1f} GiB and optimizer state of {state / 2**30:.1f} GiB do not fit "
            f"into the {free / 2**30:.1f} GiB that are available; accepted: up to "
            f"{int(rows * free / (size + state)):,} rows in all instead of {rows:,}"
            + (", or values= with less state" if state else "")
        )


def available_memory() -> int:
    """Bytes that this machine can still give: what Linux says, elsewhere all that it has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
