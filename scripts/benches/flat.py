"""Does the price of a training step stay the same however large the table is?

A transformer of width 64 with one memory, 4 heads, k = 8, 1,024 tokens a step; tables of 2**12 to 2**24 rows of 64.
Scoring the half keys grows as the square root of the slots, so the search is timed apart, on the queries of the model,
and taken off. Tokens are random, embeddings wide apart and rates next to zero, so that reads stay spread over the
whole table: a young model reads a few hundred rows, and would flatter us.
"""

import time
from pathlib import Path
from typing import Any

import torch
from benches.clock import Side, ratio, take_turns
from benches.steps import TrainingStep
from torch import Tensor

from memlayers.studies.compose import jobs_of

SIZES = (12, 14, 16, 18, 20, 22, 24)  # log2 of the slots
SHAPE = ("arm=memory", "match.reference=null", "model.d_model=64", "model.hidden=176", "optim.lr=1e-12")
SHAPE += ("optim.values.lr=1e-12",)


def made(bits: int) -> TrainingStep:
    (config,) = jobs_of([*SHAPE, f"model.ffn.num_keys={2 ** (bits // 2)}"], multirun=False)
    step = TrainingStep(config)
    torch.nn.init.normal_(step.model.embedding.weight)
    for batch in step.batches:
        batch.tokens.random_(1, len(step.model.embedding.weight))
    return step


def resident(which: str = "VmRSS", reset_peak: bool = False) -> int:
    """Memory of this process in KiB, now (VmRSS) or at its peak since the last reset (VmHWM); Linux only."""
    if reset_peak:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1])


def searching(step: TrainingStep) -> Side:
    """A side that runs the lookup of the step's memory alone, forward and backward, on queries recorded from a step."""
    lookup = next(block.ffn.lookup for block in step.model.blocks if hasattr(block.ffn, "lookup"))
    caught: list[Tensor] = []
    look_up = lookup.look_up

    def catch(query: Tensor, keys: Tensor, gains: Any, k: int) -> tuple[Tensor, Tensor]:
        caught[:] = [query.detach(), keys.detach()]
        return look_up(query, keys, gains, k)

    lookup.look_up = catch
    step()
    lookup.look_up = look_up
    query, keys = (one.clone().requires_grad_() for one in caught)

    def run() -> None:
        _, weights = look_up(query, keys, None, lookup.topk)  # without norms, which do not grow with the table
        torch.autograd.grad(weights, (query, keys), torch.ones_like(weights))

    return run


def rows_read(step: TrainingStep) -> int:
    tokens = step.batches[0].tokens[:, :-1]
    reads = step.model(tokens).reads
    return sum(len(read.slots.unique()) for read in reads.values())


def measure(rounds: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """For each size: milliseconds of step, search and net, net over that of 2**14, and seconds to build; and the growth
    of the peak of memory during steps.
    """
    steps, build = {}, {}
    for bits in sizes:
        started = time.perf_counter()
        steps[bits] = made(bits)
        build[bits] = time.perf_counter() - started
        for _ in range(2):  # the first step makes the optimizer's state
            steps[bits]()
    before = resident(reset_peak=True)
    sides: dict[str, Side] = {f"step {bits}": step for bits, step in steps.items()}
    sides |= {f"search {bits}": searching(step) for bits, step in steps.items()}
    times = take_turns(sides, rounds)
    grown = resident("VmHWM") - before
    by_size = {}
    for bits in sizes:
        whole, search = times[f"step {bits}"], times[f"search {bits}"]
        by_size[str(bits)] = {
            "step": whole,
            "search": search,
            "net_ms": round(whole["ms"] - search["ms"], 4),
            "seconds_to_build": round(build[bits], 2),
            "rows_read": rows_read(steps[bits]),
        }
    for one in by_size.values():
        one["net_to_2**14"] = ratio(net(one), net(by_size["14"]))
    return {"sizes": by_size, "peak_growth_mib": round(grown / 1024, 1), "peak_gib": round((before + grown) / 2**20, 2)}


def net(one: dict[str, Any]) -> dict[str, Any]:
    """The time of a step minus that of its search, round by round."""
    return {"rounds": [a - b for a, b in zip(one["step"]["rounds"], one["search"]["rounds"], strict=True)]}


def targets(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Targets as (name, value, limit), where value is to be at most limit."""
    sizes = found["sizes"]
    limits = {"20": 1.25, "24": 1.6}
    flat = [
        (f"flat: step at 2**{bits} slots to 2**14, net of the search", sizes[bits]["net_to_2**14"], limit)
        for bits, limit in limits.items()
        if bits in sizes
    ]
    if "24" in sizes:
        flat.append(("flat: seconds to build 2**24 slots", sizes["24"]["seconds_to_build"], 20.0))
        flat.append(("flat: growth of the peak during all steps, share of the values", _share(found), 0.25))
    return flat


def _share(found: dict[str, Any]) -> float:
    return round(found["peak_growth_mib"] / (2**24 * 64 * 4 / 2**20), 4)
