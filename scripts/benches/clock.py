"""Sides that take turns in one process, so that whatever else the machine does hits all of them alike."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

Side = Callable[[], None]
WARM = 3  # first rounds, not counted: caches, allocator, compiled kernels


def take_turns(sides: dict[str, Side], rounds: int, budget: float = float("inf")) -> dict[str, dict[str, Any]]:
    """{side: {ms, quartiles, rounds}}: milliseconds and their median; fewer rounds if they exceed the budget (s).

    A side is called once a round, and all that it does is on the clock.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    began = time.perf_counter()
    order, shuffler = list(sides), random.Random(0)
    for turn in range(WARM + rounds):
        shuffler.shuffle(order)  # nobody always comes after the one that warms the cache, or fills it
        for name in order:
            started = time.perf_counter()
            sides[name]()
            if turn >= WARM:
                times[name].append(1e3 * (time.perf_counter() - started))
        if turn >= WARM + 4 and time.perf_counter() - began > budget:
            break
    return {name: summary(values) for name, values in times.items()}


def joined(parts: Iterable[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """All rounds of the same sides, measured one part after the other."""
    rounds: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for name, one in part.items():
            rounds[name] += one["rounds"]
    return {name: summary(values) for name, values in rounds.items()}


def summary(values: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(values, n=4)
    rounds = [round(value, 4) for value in values]
    return {"ms": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)], "rounds": rounds}


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Median over the rounds of how many times as long `one` took: what slows a whole round down cancels out."""
    return round(statistics.median(a / b for a, b in zip(one["rounds"], other["rounds"], strict=True)), 3)
