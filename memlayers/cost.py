"""Compute of a model, and the solver that gives a dense arm the size at which it costs what a memory arm costs."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memlayers.config import MatchConfig, MemoryConfig, ModelConfig
from memlayers.layers.feedforward import Cost, Workload
from memlayers.model import model_cost


@dataclasses.dataclass(frozen=True)
class Matched:
    """What the solver chose, and how near it came."""

    model: ModelConfig
    steps: float  # multiplies the number of steps: 1 unless compute is spent by training longer
    cost: Cost
    target: float  # training FLOPs per token, or stored parameters, that were asked for
    reached: float


def solve(config: ModelConfig, match: MatchConfig, num_tokens: int, work: Workload) -> Matched:
    """The model `config`, resized until it costs `match.times` what it would with the reference feed-forward.

    Spent by `width`, d_model and hidden grow in proportion; by `depth`, blocks are added; then, and by `hidden` alone,
    the width of the feed-forwards trims the rest, so that the match is as near as one hidden unit allows, or as the
    multiples that hidden is to be one of.
    Raises ValueError where even the smallest model costs more, or no block has a dense feed-forward to trim.
    """
    longer = match.spend == "longer"
    size = (lambda cost: cost.params) if match.by == "params" else (lambda cost: cost.flops)

    def cost(model: ModelConfig) -> Cost:
        return model_cost(model, num_tokens, work)

    if match.reference is None:
        found = cost(config)
        return Matched(config, 1.0, found, size(found), size(found))

    reference = size(cost(dataclasses.replace(config, ffn=match.reference)))
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

    if match.spend == "width":
        step = 2 * config.num_heads  # heads keep an even width
        ratio = config.hidden / config.d_model
        config = nearest(lambda n: grown(d_model=n * step, hidden=max(1, round(ratio * n * step))))
    elif match.spend == "depth":
        config = nearest(lambda n: grown(depth=n), max(config.blocks) + 1 if isinstance(config.blocks, list) else 1)
    multiple = match.multiple_of
    unit = size(cost(grown(hidden=2 * multiple))) - size(cost(grown(hidden=multiple)))
    if not unit and size(cost(config)) != target:
        raise ValueError(
            f"match.spend={match.spend}: no block has a dense feed-forward whose width could trim the rest; "
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


def refuse_too_large(config: ModelConfig, rule: str) -> None:
    """Raises ValueError, before anything is allocated, for tables that with their state do not fit into memory."""
    if not isinstance(config.ffn, MemoryConfig):
        return
    tables = 1 if config.ffn.name == "memory_plus" else len(config.chosen_blocks())
    rows = tables * config.ffn.num_keys**2
    size = 2 if config.ffn.value_dtype == "bfloat16" else 4
    moments = {"lazy_adam": 8 * config.d_model, "rowwise_adam": 4 * config.d_model + 4, "rowwise_adagrad": 4, "sgd": 0}
    state = moments[rule] if config.ffn.sparse else (2 + 1) * size * config.d_model  # AdamW's two, and a gradient
    values, state, free = rows * size * config.d_model, rows * state, available_memory()
    if values + state > free:
        most = math.isqrt(int(rows * free / (values + state)) // tables)
        raise ValueError(
            f"model.ffn.num_keys={config.ffn.num_keys}: values of {values / 2**30:.1f} GiB and optimizer state of "
            f"{state / 2**30:.1f} GiB do not fit into the {free / 2**30:.1f} GiB that are available; "
            f"accepted: up to {most}" + (", or values= with less state" if state and config.ffn.sparse else "")
        )


def available_memory() -> int:
    """Bytes that this machine can still give: what Linux says, elsewhere all that it has."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
