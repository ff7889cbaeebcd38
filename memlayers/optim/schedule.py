"""Learning rate schedules: linear warm-up, then a shape."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from memlayers.config import OptimConfig, ScheduleConfig


def build_schedules(optimizers: list[Optimizer], config: OptimConfig, steps: int) -> list[LambdaLR]:
    """A schedule for each optimizer, which multiplies the rate of each of its groups."""

    def shape(optimizer: Optimizer) -> ScheduleConfig:
        of_values = optimizer.param_groups[0]["role"] == "memory_value"
        chosen: ScheduleConfig = config.values.schedule if of_values else config.schedule
        return chosen

    return [LambdaLR(optimizer, schedule_factor(shape(optimizer), steps)) for optimizer in optimizers]


def schedule_factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """The schedule as a function: step (from 0) -> factor of the peak rate, in (0, 1]. The last step of the warm-up is
    the first at the peak.

    In closed form, as one function serves groups of different rates; torch's LinearLR followed by CosineAnnealingLR
    gives the same numbers for a group.
    """
    warmup = round(config.warmup * steps)

    def factor(step: int) -> float:
        if step + 1 < warmup:
            return (step + 1) / warmup
        first = max(0, warmup - 1)
        done = min(1.0, (step - first) / max(1, steps - first))
        falling = {
            "linear": 1 - done,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "constant": 1.0,
            "trapezoid": min(1.0, (1 - done) / 0.4),
        }[config.shape]
        return max(config.final, falling)

    return factor
