"""How close do the read and the update come to what this machine can move?

Beside the value read: the fastest of torch's gathers and of a prefetching loop in C that only adds rows up. Beside
each update: a loop that reads and writes the same rows of as many tables as have its width (the values, and Adam's
moments), and does nothing else.
"""

import ctypes
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benches.clock import Side, ratio, take_turns
from torch.nn import functional as F

from memlayers.kernels import build, choose

SHAPES = [(12, 64), (18, 64), (22, 64), (14, 128), (20, 128)]  # log2 of the slots, width
TOKENS, READS, SETS = 1024, 32, 8


def loops() -> ctypes.CDLL:
    return ctypes.CDLL(str(build.compiled([Path(__file__).with_name("gather.c")])))


def sides(bits: int, width: int) -> dict[str, Side]:
    """The sides, which take new slots at each call, so that the rows are not in the cache."""
    fast, plain, slots = choose("auto"), loops(), 2**bits
    values, mean, square = (torch.full((slots, width), 0.1) for _ in range(3))
    total = torch.full((slots, 1), 0.1)
    reads = [torch.randint(slots, (TOKENS, READS)) for _ in range(SETS)]
    rows = [slots_read.unique() for slots_read in reads]
    weights, added = torch.rand(TOKENS, READS), torch.zeros(width)
    grads = torch.randn(TOKENS * READS, width)
    turn = {"at": 0}

    def drawn(from_: list[torch.Tensor]) -> torch.Tensor:
        turn["at"] += 1
        return from_[turn["at"] % SETS]

    def in_c() -> None:
        mine = drawn(reads)
        plain.gather(*_pointers(values, mine), ctypes.c_int64(mine.numel()), width, *_pointers(added))

    def touch(*tables: torch.Tensor) -> None:
        mine = drawn(rows)
        moments = _pointers(*tables) or (None, None)
        plain.touch(*_pointers(values), *moments, *_pointers(mine), ctypes.c_int64(len(mine)), width, *_pointers(grads))

    def adam() -> None:
        mine = drawn(rows)
        settings = {"rate": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "step": 9}
        fast.adam_rows(values, mean, square, mine, grads[: len(mine)], **settings)

    def adagrad() -> None:
        mine = drawn(rows)
        fast.adagrad_rows(values, total, mine, grads[: len(mine)], rate=1e-3, eps=1e-8)

    return {
        "read": lambda: fast.weighted_read(values, drawn(reads), weights),
        "gather: a loop in C": in_c,
        "gather: index_select": lambda: values.index_select(0, drawn(reads).flatten()),
        "gather: embedding_bag": lambda: F.embedding_bag(drawn(reads), values, mode="sum"),
        "lazy Adam": adam,
        "touch three tables": partial(touch, mean, square),
        "row-wise Adagrad": adagrad,
        "touch one table": touch,
    }


@torch.no_grad()
def measure(rounds: int, shapes: list[tuple[int, int]] = SHAPES) -> list[dict[str, Any]]:
    entries = []
    for bits, width in shapes:
        times = take_turns(sides(bits, width), rounds)
        row = 4 * width
        distinct = len(torch.randint(2**bits, (TOKENS * READS,)).unique())
        moved = {"read": TOKENS * READS * row}  # and of updates, tables both ways and a gradient
        moved |= {"lazy Adam": 7 * distinct * row, "row-wise Adagrad": 3 * distinct * row}
        gathers = [one for name, one in times.items() if name.startswith("gather")]
        one = {
            "log2_slots": bits,
            "width": width,
            "times": times,
            "megabytes": {name: round(size / 1e6, 2) for name, size in moved.items()},
            "gb_per_s": {name: round(size / times[name]["ms"] / 1e6, 2) for name, size in moved.items()},
            "of_limit": {
                "read": min(ratio(gather, times["read"]) for gather in gathers),
                "lazy Adam": ratio(times["touch three tables"], times["lazy Adam"]),
                "row-wise Adagrad": ratio(times["touch one table"], times["row-wise Adagrad"]),
            },
        }
        for name, size in one["megabytes"].items():
            rate, share = one["gb_per_s"][name], one["of_limit"][name]
            print(f"  2**{bits} slots, width {width}: {name} {size} MB, {rate} GB/s, {share} of the limit", flush=True)
        entries.append(one)
    return entries


def targets(entries: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Targets as (name, value, limit), where value is to be at least limit. Updates in the cache are left out: they are
    bound by square roots, not by bytes.
    """
    beyond_cache = [entry for entry in entries if entry["log2_slots"] > 12]
    shares = {"read": [entry["of_limit"]["read"] for entry in entries]}
    for rule in ("lazy Adam", "row-wise Adagrad"):
        shares[f"{rule}, tables beyond the cache"] = [entry["of_limit"][rule] for entry in beyond_cache]
    return [
        (f"limit: {what}, least share of what the machine can move", min(values), 0.7 if what == "read" else 0.5)
        for what, values in shares.items()
        if values
    ]


def _pointers(*tensors: torch.Tensor) -> tuple[ctypes.c_void_p, ...]:
    return tuple(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
