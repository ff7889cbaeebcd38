"""The cost of a model, and the solver that resizes an arm until it costs as much as its reference."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memlayers.config import MatchConfig, ModelConfig
from memlayers.config.model import PLACES
from memlayers.config.optim import Rule
from memlayers.layers.feedforward import Cost, Workload
from memlayers.model import build_model


@dataclasses.dataclass(frozen=True)
class Matched:
    """The model that the solver chose, and how near it comes to the target."""

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
    """Resize the model `config` until it costs `match.times` as much as the reference model: the same one with
    match.reference as its feed-forward, gated, without layers in other places, and with one pass over the blocks.

    match.spend says how: `width` scales d_model and hidden in proportion; `depth` adds blocks; `both` multiplies depth
    by times ** (1/3) and then scales width. All of them, and `hidden` alone, then adjust `hidden`, so that the match is
    as near as one hidden unit, or match.multiple_of of them, allows. `longer` multiplies the steps by match.times.
    Raises ValueError if even the smallest model costs more, or if no block has a dense feed-forward to adjust.
    """
    spend = match.way(config)
    longer = spend == "longer"
    size = (lambda cost: cost.params) if match.by == "params" else (lambda cost: cost.flops)

    def cost(model: ModelConfig) -> Cost:
        return model_cost(model, num_tokens, work, sparse, questions)

    if match.reference is None:
        total = cost(config)
        return Matched(config, 1.0, total, size(total), size(total))

    plain: dict[str, Any] = {"gated": True, "loops": 1, **dict.fromkeys(PLACES)}
    # The reference has sparse gradients, whatever the rule of this arm's tables.
    plain_model = dataclasses.replace(config, ffn=match.reference, **plain)
    reference = size(model_cost(plain_model, num_tokens, work, questions=questions))
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
        step = 2 * config.num_heads  # keeps the width of heads even
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
    total = cost(model)
    if size(total) - target > unit / 2:
        least = math.ceil(100 * match.times * size(total) / target) / 100
        key = "spend=longer" if longer else f"times={match.times}"
        raise ValueError(
            f"match.{key}: the smallest model costs {size(total):.4g} {match.by}, more than the {target:.4g} "
            f"asked for; accepted: {'width, hidden or depth' if longer else f'{least:.2f} or more'}"
            + (f", or less than match.multiple_of={multiple}" if multiple > 1 else "")
        )
    return Matched(model, match.times if longer else 1.0, total, target, size(total))


def model_cost(
    config: ModelConfig, num_tokens: int, work: Workload, sparse: bool = True, questions: Tensor | None = None
) -> Cost:
    """The cost of a model, which is built on the meta device."""
    with torch.device("meta"):
        return build_model(config, num_tokens, sparse=sparse, questions=questions).cost(work)


def refuse_too_large(
    config: ModelConfig, num_tokens: int, rule: Rule, questions: Tensor | None = None, copies: int = 1, shards: int = 1
) -> None:
    """Raises ValueError, before anything is allocated, if parameters and their optimizer state do not fit into memory.
    `copies` processes on this machine each hold one of `shards` parts of every value table, and all other parameters
    with their gradients and AdamW's two moments.
    """
    with torch.device("meta"):
        model = build_model(config, num_tokens, questions=questions)
    tables = [pool.values for pool in model.tables()]
    others = sum(p.numel() for p in model.parameters()) - sum(table.numel() for table in tables)
    free = available_memory() - 16 * copies * others
    if free < 0:
        raise ValueError(
            f"model: {others:,} parameters beside value tables, with gradients and optimizer state, need "
            f"{-free / 2**30:.1f} GiB more than are available; accepted: smaller model.d_model, depth or hidden, or "
            "less match.times"
        )
    size = copies * sum(table.numel() * table.element_size() for table in tables) // shards
    state = copies * sum(
        len(table) * rule.state_bytes(table.shape[1] // shards, table.element_size()) for table in tables
    )
    if size + state > free:
        rows = sum(len(table) for table in tables)
        raise ValueError(
            f"model: value tables of {size / 2**30:.1f} GiB and optimizer state of {state / 2**30:.1f} GiB do not fit "
            f"into the {free / 2**30:.1f} GiB that are available; accepted: up to "
            f"{int(rows * free / (size + state)):,} rows in all instead of {rows:,}"
            + (", or values= with less state" if state else "")
        )


def available_memory() -> int:
    """Bytes of memory that are available, from Linux: on the machine, and in the process's control groups, which is
    where Slurm's --mem and a container's limit are. Elsewhere all memory of the machine.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        group = Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::/")[2]
    except (OSError, StopIteration, IndexError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *below_limits(Path("/sys/fs/cgroup"), group)])


def below_limits(root: Path, group: str) -> Iterator[int]:
    """What the limits of a control group (version 2) below `root`, and of those that contain it, leave, in bytes."""
    for folder in (root / group, *(root / group).parents):
        try:
            most, held = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield most - held + int(stat["file"])  # the cache of files gives way
        except (OSError, ValueError, KeyError):  # no such group, or one without a limit, which is "max"
            continue
