"""Where the time of the study's run goes: PyTorch's profiler over the first steps of three runs, by kind of work.

Own time of operators, in milliseconds a step. The profiler itself slows operators down, small ones most, and what is
between them is mostly Python's, Lightning's and its own: "whole step" is a second fit, on a clock and without it.
"""

import re
import time
from typing import Any

import torch
from benches.steps import configured
from torch.profiler import ProfilerActivity, profile

from memlayers.kernels import choose
from memlayers.lit import Batches, FactLearner
from memlayers.model import build_model
from memlayers.run import plan
from memlayers.trainer import build_trainer, fit

RUNS = {
    "dense": ("arm=dense",),
    "memory, reference": ("arm=memory", "kernels=reference"),
    "memory, in C": ("arm=memory",),
}
KINDS = {  # the first that fits an operator's name
    "search of keys, with norms": r"_TopK|_Norm|aten::(topk|sort)",
    "read and update of values": r"_Read|_Softmax|RowwiseAdagrad|aten::.*(embedding_bag|unique|sparse|coalesce)",
    "gather and scatter": r"aten::.*(gather|scatter|index|embedding|take)",
    "matrix products": r"aten::(mm|bmm|addmm|baddbmm)",
    "attention": r"attention",
    "cross-entropy": r"softmax|nll_loss",
    "AdamW and Muon": r"AdamW|adamw|Muon",
    "copies and fills": r"aten::(copy_|cat|fill_|zero|clone|empty|resize)",
    "other operators": r"",
}


def fitting(steps: int, overrides: tuple[str, ...]) -> Any:
    """A function that trains the first steps of a run of the study anew, with Lightning and without probes."""
    config = configured(*overrides, "progress=none", "logger=none")
    chosen, kernels = plan(config), choose(config.kernels)

    def run() -> None:
        generator = torch.Generator().manual_seed(config.seed)
        model = build_model(chosen.matched.model, len(chosen.text.vocabulary), generator, kernels)
        learner = FactLearner(model, config.optim, config.training.loss, steps, kernels)
        batches = Batches(chosen.text, chosen.batch_size, steps, (config.world.seed, config.seed))
        fit(build_trainer(config, steps, []), learner, batches, None)

    return run


def measure(steps: int) -> dict[str, Any]:
    """run -> kind of work -> milliseconds a step."""
    found = {}
    for name, overrides in RUNS.items():
        run = fitting(steps, overrides)
        run()  # compiles, fills caches
        started = time.perf_counter()
        run()
        whole = time.perf_counter() - started
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            run()
        spent = dict.fromkeys(KINDS, 0.0)
        for event in profiled.key_averages():
            kind = next(kind for kind, names in KINDS.items() if re.search(names, event.key))
            spent[kind] += event.self_cpu_time_total / 1e6
        found[name] = {kind: round(1e3 * seconds / steps, 3) for kind, seconds in spent.items()}
        found[name]["whole step"] = round(1e3 * whole / steps, 3)
    return found


def targets(_: dict[str, Any]) -> list[tuple[str, float, float]]:
    """None: it is to be read."""
    return []
