"""Schedules: in closed form, and against torch's own one after the other."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler as torchs

from memlayers.config import OptimConfig, ScheduleConfig
from memlayers.optim import build_schedules
from memlayers.optim.schedule import schedule_factor

SHAPES = ("linear", "cosine", "constant", "trapezoid")


def factors(steps: int, **shape) -> list[float]:
    factor = schedule_factor(ScheduleConfig(**shape), steps)
    return [factor(step) for step in range(steps)]


def test_schedules_in_closed_form():
    flat = {"warmup": 0.0, "final": 0.0}
    assert factors(10, shape="linear", **flat) == pytest.approx([1 - step / 10 for step in range(10)])
    assert factors(10, shape="constant", **flat) == [1.0] * 10
    assert factors(8, shape="cosine", **flat) == pytest.approx(
        [math.cos(math.pi * step / 16) ** 2 for step in range(8)]
    )
    assert factors(10, shape="trapezoid", **flat) == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])
    assert factors(10, shape="constant", warmup=0.4, final=0.0) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)
    warm = factors(11, shape="linear", warmup=0.2, final=0.5)
    assert warm == pytest.approx([0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5])
    half = factors(8, shape="linear", warmup=0.5, final=0.0)
    assert half == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2])


def by_torch(optimizer: torch.optim.Optimizer, shape: str, warmup: int, steps: int) -> torchs.LRScheduler:
    """The warm-up, at the whole rate on its last step, then the shape over the steps from there on."""
    first = max(0, warmup - 1)
    left, flat = steps - first, round(0.6 * (steps - first))
    parts: list[tuple[int, torchs.LRScheduler]] = []  # where one begins
    if first:
        parts.append((0, torchs.LinearLR(optimizer, 1 / warmup, 1.0, total_iters=first)))
    if shape == "linear":
        parts.append((first, torchs.LinearLR(optimizer, 1.0, 0.0, total_iters=left)))
    elif shape == "cosine":
        parts.append((first, torchs.CosineAnnealingLR(optimizer, T_max=left)))
    else:
        parts.append((first, torchs.ConstantLR(optimizer, 1.0)))
    if shape == "trapezoid":
        parts.append((first + flat, torchs.LinearLR(optimizer, 1.0, 0.0, total_iters=left - flat)))
    begins, schedules = zip(*parts, strict=True)
    return torchs.SequentialLR(optimizer, list(schedules), milestones=list(begins[1:]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 2, 11, 21])
@pytest.mark.parametrize("final", [0.0, 0.02, 0.3])
def test_rates_are_those_of_torchs_schedules_one_after_the_other(shape, warmup, final):
    """Their own ends are 0: a shape that would fall below `final` stays there."""
    steps = max(0, warmup - 1) + 20
    config = ScheduleConfig(warmup / steps, shape, final)
    assert round(config.warmup * steps) == warmup
    mine, theirs = (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3) for _ in range(2))
    for optimizer in (mine, theirs):
        optimizer.param_groups[0]["role"] = "matrix"
    (own,) = build_schedules([mine], OptimConfig(schedule=config), steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's SequentialLR steps its parts in a way that it warns of itself
        torchs_own = by_torch(theirs, shape, warmup, steps)
        rates = []
        for step in range(steps):
            wanted = max(final * 0.3 if step + 1 >= warmup else 0.0, theirs.param_groups[0]["lr"])
            rates.append(mine.param_groups[0]["lr"])
            assert rates[-1] == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            for one in (mine, theirs, own, torchs_own):
                one.step()
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize("shape", SHAPES)
@given(
    steps=st.integers(1, 400), warmup=st.sampled_from([0.0, 0.03, 0.5, 1.0]), final=st.sampled_from([0.0, 0.02, 1.0])
)
def test_the_whole_rate_is_reached_exactly_on_the_last_step_of_the_warm_up(shape, steps, warmup, final):
    found = factors(steps, shape=shape, warmup=warmup, final=final)
    last = max(0, round(warmup * steps) - 1)
    assert max(found) == found[last] == 1.0
    assert found[: last + 1] == sorted(found[: last + 1]) and found[last:] == sorted(found[last:], reverse=True)


@given(
    st.sampled_from(SHAPES),
    st.floats(0, 1),
    st.floats(0.001, 1),
    st.integers(1, 300),
)
def test_schedules_stay_above_zero_and_up_to_one(shape, warmup, final, steps):
    found = factors(steps, shape=shape, warmup=warmup, final=final)
    assert all(0 < factor <= 1 for factor in found)
    beyond = schedule_factor(ScheduleConfig(warmup, shape, final), steps)(steps)
    assert beyond == pytest.approx(1.0 if shape == "constant" else final)
