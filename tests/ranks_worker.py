"""What test_ranks.py starts by torchrun, as ranks_worker.py CHECK ...; an assertion fails the whole group."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from commands import small
from test_resume import stop_at

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from benches.shards import counted

from memlayers.kernels import REFERENCE, choose
from memlayers.layers.batch_norm import BatchNorm
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import ShardedPool, wire_bytes
from memlayers.optim import clip_gradients
from memlayers.optim.rules import SGD, LazyAdam, RowwiseAdagrad
from memlayers.training import ranks
from memlayers.training.checkpoint import Interrupted
from memlayers.training.run import run

SLOTS, WIDTH, TOKENS, READS = 37, 24, 5, 4
RULES = [RowwiseAdagrad(), LazyAdam(), LazyAdam(rowwise=True), SGD(lr=1.0)]


def pools(kernels: Any = REFERENCE, sparse: bool = True) -> tuple[MemoryPool, ShardedPool]:
    """The whole table and this process's columns of it."""
    settings: dict[str, Any] = {"sparse": sparse, "read": kernels.weighted_read}
    whole, own = MemoryPool(SLOTS, WIDTH, **settings), ShardedPool(SLOTS, WIDTH, **settings)
    with torch.no_grad():
        whole.values.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    own.draw(0.3, torch.Generator().manual_seed(0), rows=10)
    return whole, own


def mine(whole: torch.Tensor) -> torch.Tensor:
    return whole.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def reads(step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slots, weights and a direction for the outputs, of the tokens of all processes."""
    generator, count = torch.Generator().manual_seed(step), TOKENS * dist.get_world_size()
    slots = torch.randint(SLOTS, (count, READS), generator=generator)
    weights = torch.rand(count, READS, generator=generator)
    return slots, weights, torch.randn(count, WIDTH, generator=generator)


def check_layer() -> None:
    """Forward, both gradients, rows: as of a table that one process has whole."""
    part = slice(TOKENS * dist.get_rank(), TOKENS * (dist.get_rank() + 1))
    for kernels in (REFERENCE, choose("auto")):
        for sparse in (True, False):
            whole, own = pools(kernels, sparse)
            torch.testing.assert_close(own.values, mine(whole.values), rtol=0, atol=0)
            slots, weights, direction = reads()
            of_all, of_own = weights.clone().requires_grad_(), weights[part].clone().requires_grad_()
            expected, got = whole(slots, of_all), own(slots[part], of_own)
            torch.testing.assert_close(got, expected[part])
            (expected * direction).sum().backward()
            (got * direction[part]).sum().backward()
            torch.testing.assert_close(of_own.grad, of_all.grad[part])
            gradients = [pool.values.grad.to_dense() if sparse else pool.values.grad for pool in (whole, own)]
            torch.testing.assert_close(gradients[1], mine(gradients[0]))
            torch.testing.assert_close(own.rows(slots[part]), whole.rows(slots)[part])


def check_wire() -> None:
    """What a read sends, forward and backward, is what the formula says."""
    part = slice(TOKENS * dist.get_rank(), TOKENS * (dist.get_rank() + 1))
    _, own = pools()
    slots, weights, direction = (one[part] for one in reads())
    with counted() as sent:
        (own(slots, weights.requires_grad_()) * direction).sum().backward()
    assert sent == {"reads": wire_bytes(TOKENS, READS, WIDTH, dist.get_world_size()), "state": 0.0}


def check_steps() -> None:
    """Twenty steps of every rule leave this process's columns of what one process has."""
    part = slice(TOKENS * dist.get_rank(), TOKENS * (dist.get_rank() + 1))
    for rule in RULES:
        whole, own = pools()
        optimizers = rule.build([whole.values], REFERENCE), rule.build([own.values], ranks.for_shards(REFERENCE))
        for step in range(20):
            slots, weights, direction = reads(step)
            (whole(slots, weights) * direction).sum().backward()
            (own(slots[part], weights[part]) * direction[part]).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        torch.testing.assert_close(own.values, mine(whole.values), rtol=1e-4, atol=1e-5)


def check_clip() -> None:
    """The joint norm of two tables, one of which has a dense gradient, and gradients scaled by it, or left alone."""
    part = slice(TOKENS * dist.get_rank(), TOKENS * (dist.get_rank() + 1))
    for max_norm in (1e-2, 1e3):
        tables = [pools(sparse=sparse) for sparse in (True, False)]
        for step, (whole, own) in enumerate(tables):
            slots, weights, direction = reads(step)
            (whole(slots, weights) * direction).sum().backward()
            (own(slots[part], weights[part]) * direction[part]).sum().backward()
        before = [own.values.grad.to_dense().clone() for _, own in tables]
        clip_gradients([whole.values for whole, _ in tables], max_norm)
        clip_gradients([own.values for _, own in tables], max_norm, sharded=True)
        for (whole, own), unclipped in zip(tables, before, strict=True):
            torch.testing.assert_close(own.values.grad.to_dense(), mine(whole.values.grad.to_dense()))
            assert own.values.grad.to_dense().equal(unclipped) == (max_norm == 1e3)


def check_batch() -> None:
    """Batch normalisation of documents on several processes, one without a token: torch's of all tokens."""
    own = slice(dist.get_rank(), None, dist.get_world_size())
    generator = torch.Generator().manual_seed(0)
    whole, direction = (torch.randn(6, 4, 5, generator=generator) for _ in range(2))
    tokens = (torch.arange(4) < torch.tensor([4, 0, 3, 1, 2, 4])[:, None]).long()
    real, part, whole = tokens.bool(), whole[own].clone().requires_grad_(), whole.requires_grad_()
    mine, theirs, expected = BatchNorm(5), torch.nn.BatchNorm1d(5), torch.zeros(6, 4, 5)
    expected[real] = theirs(whole[real])
    got = mine(part, tokens[own]) * tokens[own, :, None]
    torch.testing.assert_close(got, expected[own], rtol=1e-4, atol=1e-5)
    (expected * direction).sum().backward()
    (got * direction[own]).sum().backward()
    torch.testing.assert_close(part.grad, whole.grad[own], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.mean, theirs.running_mean)


def check_ranks() -> None:
    """Means, the first one's word, and gradients of rows that not all processes have."""
    rank, size = ranks.rank(), ranks.count()
    assert ranks.all_reduce_max(rank, -rank) == [size - 1, 0]
    assert ranks.mean(torch.tensor([float(rank)])).item() == (size - 1) / 2
    assert ranks.broadcast_from_rank0(lambda: rank) == 0
    try:
        ranks.broadcast_from_rank0(lambda: int("no number"))
    except ValueError as error:
        assert "no number" in str(error)
    else:
        raise AssertionError("the others hear of the first one's mistake")
    rows = torch.arange(rank + 1) * 2
    grad = torch.sparse_coo_tensor(rows[None], torch.full((len(rows), 3), rank + 1.0), (20, 3))
    dense = sum(torch.zeros(20, 3).index_fill_(0, torch.arange(other + 1) * 2, other + 1.0) for other in range(size))
    torch.testing.assert_close(ranks.mean_gradient(grad).to_dense(), dense / size)
    assert ranks.mean_gradient(grad).is_coalesced()


def train(folder: str, stop: str, *commands: str) -> None:
    """Small runs, one after another; at a step of each, if it is not 0, the last process is asked to stop."""
    is_last = int(os.environ["RANK"]) + 1 == int(os.environ["WORLD_SIZE"])
    if int(stop) and is_last:
        stop_at(pytest.MonkeyPatch(), int(stop), signal.SIGTERM)
    for words in commands:
        try:
            run(small(Path(folder), *words.split()))
        except Interrupted as stopped:
            print(f"stopped by {stopped.number}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(*sys.argv[2:])
    else:
        ranks.join({"strategy": "ddp", "accelerator": "cpu"})
        checks = {"layer": check_layer, "clip": check_clip, "wire": check_wire, "steps": check_steps}
        checks |= {"batch": check_batch, "ranks": check_ranks}
        for name in sys.argv[1:]:
            checks[name]()
    if dist.is_initialized():
        dist.destroy_process_group()
