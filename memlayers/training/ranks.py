"""Data parallelism: several processes of one run, started by torchrun, each with its part of every batch."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from memlayers.kernels import Kernels
from memlayers.layers.updates import adagrad_rows, adam_rows, mean_squares
from memlayers.optim.rows import rows_and_gradients
from memlayers.processes import all_reduce_sum

T = TypeVar("T")
PATIENCE = timedelta(days=2)  # timeout: the first process may wait for another run, and the others wait for it


def started() -> int | None:
    """How many processes torchrun started; None without torchrun."""
    size = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    return None if size is None else int(size)


def is_first() -> bool:
    """Whether this process is rank 0, which writes and prints."""
    return started() is None or int(os.environ["RANK"]) == 0


def check(trainer: dict[str, Any]) -> None:
    """Raises ValueError if the trainer does not fit the way in which this process was started."""
    several, size = trainer.get("strategy") == "ddp", started()
    if several and size is None:
        raise ValueError(
            "trainer=ddp: one process, started without torchrun; accepted: "
            "torchrun --standalone --nproc-per-node=2 scripts/train.py trainer=ddp ..."
        )
    if not several and size is not None and size > 1:
        strategy = trainer.get("strategy", "auto")
        raise ValueError(f"trainer.strategy={strategy}: {size} processes at one run; accepted: trainer=ddp")
    if several and trainer.get("accelerator") not in ("cpu", *(("gpu", "cuda") if torch.cuda.is_available() else ())):
        raise ValueError(
            f"trainer.accelerator={trainer.get('accelerator')}: not with trainer=ddp here; accepted: cpu, and gpu on "
            "machines that have one"
        )


def join(trainer: dict[str, Any]) -> None:
    """Initialise the process group, once, for trainer=ddp; raises as `check` does."""
    check(trainer)
    if trainer.get("strategy") == "ddp" and not dist.is_initialized():
        on_gpu = trainer.get("accelerator") != "cpu"
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)


def count() -> int:
    """The number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def launcher_overrides(arguments: list[str]) -> list[str]:
    """Hydra overrides to add under torchrun, so that jobs run one after another in the processes that it has started.

    Raises ValueError for a launcher that starts processes.
    """
    if started() is None:
        return []
    for word in arguments:
        if word.startswith("hydra/launcher=") and word != "hydra/launcher=basic":
            raise ValueError(f"{word}: torchrun has started the processes of all runs; accepted: hydra/launcher=basic")
    return [] if "hydra/launcher=basic" in arguments else ["hydra/launcher=basic"]


def on_this_machine() -> int:
    """The number of processes of this run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 else 1


def broadcast_from_rank0(call: Callable[[], T]) -> T:
    """Call in rank 0, and return its result in all processes. If it raises, rank 0 raises the same, and the others
    raise ValueError with its text.
    """
    if count() == 1:
        return call()
    outcome: list[Any] = [None, None]
    failed: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = call()
        except Exception as error:
            outcome[1], failed = str(error), error
    dist.broadcast_object_list(outcome)
    if failed is not None:
        raise failed
    if outcome[1] is not None:
        raise ValueError(outcome[1])
    result: T = outcome[0]
    return result


def all_reduce_max(*numbers: int) -> list[int]:
    """All-reduce max of each integer."""
    if count() == 1:
        return list(numbers)
    largest = torch.tensor(numbers)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return [int(number) for number in largest]


def mean(local: Tensor) -> Tensor:
    """All-reduce mean."""
    return local if count() == 1 else all_reduce_sum(local) / count()


def mean_gradient(grad: Tensor) -> Tensor:
    """All-reduce mean of a gradient, dense, or sparse with some rows of a table."""
    if not grad.is_sparse:
        return mean(grad)
    rows, gradients = rows_and_gradients(grad)
    (longest,) = all_reduce_max(len(rows))
    padded = rows.new_full((longest,), -1), gradients.new_zeros(longest, gradients.shape[1])
    padded[0][: len(rows)], padded[1][: len(rows)] = rows, gradients
    gathered = []
    for local in padded:
        parts = [torch.empty_like(local) for _ in range(count())]
        dist.all_gather(parts, local)
        gathered.append(torch.cat(parts))
    is_row = gathered[0] >= 0
    indices, values = gathered[0][None, is_row], gathered[1][is_row] / count()
    return torch.sparse_coo_tensor(indices, values, grad.shape, check_invariants=False).coalesce()


def for_shards(kernels: Kernels) -> Kernels:
    """Kernels for tables that are cut by columns: mean squares of a row are taken over the columns of all processes."""

    def squares(grad: Tensor) -> Tensor:
        return mean(mean_squares(grad))

    adagrad, adam = partial(adagrad_rows, squares=squares), partial(adam_rows, squares=squares)
    return replace(kernels, adagrad_rows=adagrad, adam_rows=adam)
