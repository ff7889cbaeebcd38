"""A table cut into columns over processes, as layers/sharded_pool.py does, against one cut into rows.

Both read forward, backward and move their rows; bytes are counted where they are sent, and compared with what
memlayers.layers.sharded_pool.wire_bytes says. Started by bench.py; by torchrun, this file is one of the processes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

SHAPES = [(14, 64, 32), (14, 512, 32), (18, 512, 8)]  # log2 of the slots, width, reads a token
RANKS, TOKENS = (2, 4), 512  # tokens of a process


class RowShards(nn.Module):
    """A table cut by rows: slot s is row s // N of process s % N. Message sizes depend on what is read."""

    def __init__(self, slots: int, width: int):
        super().__init__()
        self.ranks = dist.get_world_size()
        self.values = nn.Parameter(torch.zeros(slots // self.ranks, width))

    def forward(self, slots: Tensor, weights: Tensor) -> Tensor:
        """slots, weights (t, r) -> (t, d): each owner sums its rows for each token; then their sums are added."""
        tokens, order = len(slots), (slots.flatten() % self.ranks).argsort(stable=True)
        counts = torch.bincount(slots.flatten() % self.ranks, minlength=self.ranks)
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts)
        splits = theirs.tolist(), counts.tolist()
        asked = torch.stack([slots.flatten()[order] // self.ranks, order // slots.shape[1]])
        rows, token = (_Send.apply(indices, *splits) for indices in asked)
        their_weights = _Send.apply(weights.flatten()[order], *splits)
        source = torch.arange(self.ranks).repeat_interleave(theirs)
        from memlayers.kernels import choose

        read = choose("auto").weighted_read(self.values, rows[:, None], their_weights[:, None])
        sums = read.new_zeros(self.ranks * tokens, read.shape[1]).index_add(0, source * tokens + token, read)
        equal = [tokens] * self.ranks
        return _Send.apply(sums, equal, equal).unflatten(0, (self.ranks, -1)).sum(0)


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, received: list[int], sent: list[int]) -> Tensor:
        ctx.splits = received, sent
        out = own.new_empty(sum(received), *own.shape[1:])
        dist.all_to_all_single(out, own.contiguous(), received, sent)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        received, sent = ctx.splits
        out = grad.new_empty(sum(sent), *grad.shape[1:])
        dist.all_to_all_single(out, grad.contiguous(), sent, received)
        return out, None, None


@contextmanager
def counted() -> Iterator[dict[str, float]]:
    """Context that counts the bytes that this process sends: for reads, and by ring all-reduce for state."""
    sent, before = {"reads": 0.0, "state": 0.0}, (dist.all_gather, dist.all_to_all_single, dist.all_reduce)
    ranks, rank = dist.get_world_size(), dist.get_rank()

    def all_gather(parts: Any, own: Tensor) -> None:
        sent["reads"] += (ranks - 1) * own.nbytes
        before[0](parts, own)

    def exchange(out: Tensor, own: Tensor, received: Any = None, splits: Any = None) -> None:
        kept = 1 / ranks if splits is None or not len(own) else splits[rank] / len(own)
        sent["reads"] += own.nbytes * (1 - kept)
        before[1](out, own, received, splits)

    def all_reduce(own: Tensor, *settings: Any) -> None:
        sent["state"] += 2 * (ranks - 1) / ranks * own.nbytes
        before[2](own, *settings)

    dist.all_gather, dist.all_to_all_single, dist.all_reduce = all_gather, exchange, all_reduce  # type: ignore
    try:
        yield sent
    finally:
        dist.all_gather, dist.all_to_all_single, dist.all_reduce = before


def steps(kind: str, bits: int, width: int, reads: int) -> Any:
    """Two functions: a training step of this process, and the bytes that it holds after one."""
    from memlayers.kernels import choose
    from memlayers.layers.sharded_pool import ShardedPool
    from memlayers.optim.rules import RowwiseAdagrad
    from memlayers.training.ranks import for_shards

    fast = choose("auto")
    columns = kind == "columns"
    pool = ShardedPool(2**bits, width, read=fast.weighted_read) if columns else RowShards(2**bits, width)
    nn.init.zeros_(pool.values)
    optimizer = RowwiseAdagrad().build([pool.values], for_shards(fast) if columns else fast)
    generator = torch.Generator().manual_seed(dist.get_rank())
    slots = torch.randint(2**bits, (TOKENS, reads), generator=generator)
    weights = torch.rand(TOKENS, reads, generator=generator).requires_grad_()
    direction = torch.randn(TOKENS, width, generator=generator)

    def step() -> None:
        (pool(slots, weights) * direction).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    def held() -> int:
        return pool.values.nbytes + sum(one["total"].nbytes for one in optimizer.state.values())

    return step, held


def worker(out: str, rounds: int, shapes: list[tuple[int, int, int]]) -> None:
    from benches.clock import ratio, take_turns

    from memlayers.layers.sharded_pool import wire_bytes

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    ranks, found = dist.get_world_size(), []
    for bits, width, reads in shapes:
        made = {kind: steps(kind, bits, width, reads) for kind in ("columns", "rows")}
        sides, sent = {kind: step for kind, (step, _) in made.items()}, {}
        for kind, step in sides.items():
            with counted() as bytes_sent:
                step()
            sent[kind] = bytes_sent
        held = made["columns"][1]()
        # Both have to begin each round together: the clock is that of the first process.
        times = take_turns(sides, rounds)
        found.append(
            {
                "ranks": ranks, "log2_slots": bits, "width": width, "reads": reads, "tokens": TOKENS * ranks,
                "held": held, "sent": sent, "predicted": wire_bytes(TOKENS, reads, width, ranks),
                "times": times, "rows_over_columns": ratio(times["rows"], times["columns"]),
            }
        )  # fmt: skip
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def measure(rounds: int, ranks: tuple[int, ...] = RANKS, shapes: Any = SHAPES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for count in ranks:
        with tempfile.TemporaryDirectory() as folder:
            out, here = f"{folder}/out.json", Path(__file__)
            launch = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--standalone",
                f"--nproc-per-node={count}",
                str(here),
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{here.parents[1]}:{here.parents[2]}"}
            subprocess.run([*launch, out, str(rounds), json.dumps(shapes)], check=True, env=environment)
            found += json.loads(Path(out).read_text())
    for one in found:
        columns, rows = (sum(one["sent"][kind].values()) / 1e6 for kind in ("columns", "rows"))
        shape = f"2**{one['log2_slots']} slots, width {one['width']}, {one['reads']} reads"
        print(f"  {one['ranks']} processes, {shape}: columns send {columns:.2f} MB, rows {rows:.2f} MB", flush=True)
    return found


def targets(found: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Targets as (name, value, limit), where value is to be at most limit."""
    wrong = max(abs(one["sent"]["columns"]["reads"] / one["predicted"] - 1) for one in found)
    return [("shards: bytes that reads send against those predicted, largest relative error", wrong, 1e-9)]


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
