"""Timing of alternatives (sides) in turns, in one process, so that other load on the machine affects all alike."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

Side = Callable[[], None]
WARM = 3  # rounds of warm-up, not counted: caches, allocator, compiled kernels


def take_turns(sides: dict[str, Side], rounds: int, budget: float = float("inf")) -> dict[str, dict[str, Any]]:
    """Time each side once a round: {side: {ms (median), quartiles, rounds}} in milliseconds; fewer rounds if they
    exceed the budget in seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    order, shuffler = list(sides), random.Random(0)
    for turn in range(WARM + rounds):
        shuffler.shuffle(order)  # else a side would always run after the same one, and find its cache
        for name in order:
            started = time.perf_counter()
            sides[name]()
            if turn >= WARM:
                times[name].append(1e3 * (time.perf_counter() - started))
        if turn >= WARM + 4 and time.perf_counter() - began > budget:
            break
    return {name: summary(values) for name, values in times.items()}


def joined(parts: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Join the rounds of the same sides from several measurements."""
    rounds: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for name, times in part.items():
            rounds[name] += times["rounds"]
    return {name: summary(values) for name, values in rounds.items()}


def summary(values: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(values, n=4)
    rounds = [round(value, 4) for value in values]
    return {"ms": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)], "rounds": rounds}


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The median over rounds of one's time over other's, in which the slowness of a whole round cancels out."""
    return round(statistics.median(a / b for a, b in zip(one["rounds"], other["rounds"], strict=True)), 3)
