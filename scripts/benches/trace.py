"""Where the time of the study's run goes: PyTorch's profiler over the first steps of three runs, by kind of work.

Own time of operators, in milliseconds a step. The profiler slows small operators down, and what lies between them,
Python and Lightning, is not theirs: "whole step" is the median from one batch to the next in fits without it, taking
turns.
"""

import itertools
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from benches.steps import configured
from torch.profiler import ProfilerActivity, profile

from memlayers.documents import Documents
from memlayers.kernels import choose
from memlayers.model import build_model
from memlayers.training.checkpoint import Checkpointer
from memlayers.training.learner import Batches, FactLearner
from memlayers.training.plan import plan
from memlayers.training.trainer import build_trainer, fit

RUNS = {
    "dense": ("arm=dense",),
    "memory, reference": ("arm=memory", "kernels=reference"),
    "memory, in C": ("arm=memory",),
}
KINDS = {  # the first that fits an operator's name
    "lookup in C": r"_LookUp",
    "read and update in C": r"_Read|RowOptimizer",
    "top-k, sort, unique": r"aten::.*(topk|sort|unique)",
    "gather and scatter": r"aten::.*(gather|scatter|index|embedding|take|sparse|coalesce)",
    "matrix products, also of Muon and of the search in PyTorch": r"aten::(mm|bmm|addmm|baddbmm)",
    "attention": r"attention",
    "softmax and cross-entropy": r"softmax|nll_loss",
    "AdamW and Muon, but for products": r"AdamW|adamw|Muon",
    "copies and fills": r"aten::(copy_|cat|fill_|zero|clone|empty|resize)",
    "other operators": r"",
}
TURNS = 3


class Watched(Batches):
    """Batches that call `told` with the step before each batch."""

    def __init__(self, *arguments: Any, told: Callable[[int], None]):
        super().__init__(*arguments)
        self.told = told

    def __iter__(self) -> Iterator[Documents]:
        for step, batch in enumerate(super().__iter__()):
            self.told(step)
            yield batch


def fitting(steps: int, overrides: tuple[str, ...]) -> Callable[[Callable[[int], None]], None]:
    """A function that trains the first steps of a run of the study, with Lightning and without probes."""
    config = configured(*overrides, "progress=none", "logger=none")
    chosen, kernels = plan(config), choose(config.kernels)

    def run(told: Callable[[int], None]) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        model = build_model(chosen.matched.model, len(chosen.text.vocabulary), generator, kernels)
        learner = FactLearner(model, config.optim, config.training.loss, steps, kernels)
        seeds = (config.world.seed, config.seed)
        fit(
            build_trainer(config, steps, 0, []),
            learner,
            Watched(chosen.text, chosen.batch_size, steps, seeds, told=told),
            Checkpointer(config, None, 0, []),
        )

    return run


def noted(at: list[float], _: int) -> None:
    at.append(time.perf_counter())


def started(profiler: profile, step: int) -> None:
    """Start the profiler at the first batch, as earlier work belongs to no step."""
    if step == 0:
        profiler.start()


def measure(steps: int) -> dict[str, Any]:
    """Milliseconds per step, by run and kind of work."""
    runs = {name: fitting(steps, overrides) for name, overrides in RUNS.items()}
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(TURNS):
        for name, run in runs.items():
            at: list[float] = []
            run(partial(noted, at))
            times[name] += [later - earlier for earlier, later in itertools.pairwise(at)]
    by_run = {}
    for name, run in runs.items():
        profiler = profile(activities=[ProfilerActivity.CPU])
        run(partial(started, profiler))
        profiler.stop()
        spent = dict.fromkeys(KINDS, 0.0)
        for event in profiler.key_averages():
            kind = next(kind for kind, names in KINDS.items() if re.search(names, event.key))
            spent[kind] += event.self_cpu_time_total / 1e3
        by_run[name] = {kind: round(milliseconds / steps, 3) for kind, milliseconds in spent.items()}
        by_run[name]["whole step"] = round(1e3 * statistics.median(times[name]), 3)
    return by_run


def targets(_: dict[str, Any]) -> list[tuple[str, float, float]]:
    """No targets."""
    return []
