"""Time the value read and its update against PyTorch's own, interleaved in one process, as ratios of medians.

python scripts/bench.py            # saves results/bench/pool.json
python scripts/bench.py --quick    # two small shapes, a few rounds, nothing saved
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from memlayers.layers.pool import MemoryPool
from memlayers.optim import LazyAdam
from memlayers.record import code_version, machine, write_json

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [(2**12, 32, 1024, 32), (96**2, 32, 1024, 32), (2**14, 64, 2048, 32), (2**18, 64, 2048, 32)]  # slots d t r


def ours(slots: int, width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    pool = MemoryPool(slots, width)
    nn.init.normal_(pool.values)
    return pool, LazyAdam([pool.values], 1e-3, (0.9, 0.99), 1e-8)


def torchs(slots: int, width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    bag = nn.EmbeddingBag(slots, width, mode="sum", sparse=True)
    return bag, torch.optim.SparseAdam(bag.parameters(), 1e-3, (0.9, 0.99))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, tokens: int, reads: int) -> Callable[[], None]:
    """One training step: read, backward, update; slots are drawn anew outside the clock."""
    is_pool = isinstance(module, MemoryPool)
    slots_in_table = (module.values if is_pool else module.weight).shape[0]  # type: ignore[union-attr]
    slots = torch.randint(slots_in_table, (tokens, reads))
    weights = torch.rand(tokens, reads, requires_grad=True)

    def run() -> None:
        read = module(slots, weights) if is_pool else module(slots, per_sample_weights=weights)
        read.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def measure(shape: tuple[int, int, int, int], rounds: int) -> dict[str, object]:
    """Medians in milliseconds of both sides, taking turns."""
    slots, width, tokens, reads = shape
    sides = {name: make(slots, width) for name, make in (("memlayers", ours), ("EmbeddingBag+SparseAdam", torchs))}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (module, optimizer) in sides.items():
            run = step(module, optimizer, tokens, reads)
            started = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - started))
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    spread = {name: statistics.quantiles(values[2:], n=4) for name, values in times.items()}
    ratio = medians["memlayers"] / medians["EmbeddingBag+SparseAdam"]
    names = ("slots", "width", "tokens", "reads")
    return dict(zip(names, shape, strict=True)) | {"milliseconds": medians, "quartiles": spread, "ratio": ratio}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="for function, not for speed")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    measured = [measure(shape, 6 if quick else 40) for shape in (SHAPES[:2] if quick else SHAPES)]
    table = Table(box=None, title="read + backward + update, ms", title_justify="left")
    for name in ("slots", "width", "tokens", "reads", "memlayers", "EmbeddingBag+SparseAdam", "ratio"):
        table.add_column(name, justify="right")
    for one in measured:
        times = [f"{value:.2f}" for value in one["milliseconds"].values()]  # type: ignore[attr-defined]
        table.add_row(
            *(str(one[name]) for name in ("slots", "width", "tokens", "reads")), *times, f"{one['ratio']:.2f}"
        )
    Console(width=120).print(table)
    if not quick:
        path = ROOT / "results" / "bench" / "pool.json"
        write_json(path, {"machine": machine(1), "code": code_version(), "shapes": measured})
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
