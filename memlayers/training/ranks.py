"""Several processes at one run, as torchrun starts them: each learns from its part of every batch."""

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
PATIENCE = timedelta(days=2)  # the first process may wait for another run, the others for the first


def started() -> int | None:
    """How many processes torchrun started; None for one that was started without it."""
    found = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    return None if found is None else int(found)


def is_first() -> bool:
    """Of the processes at a run, the one that writes and speaks."""
    return started() is None or int(os.environ["RANK"]) == 0


def check(trainer: dict[str, Any]) -> None:
    """Raises ValueError where the way in which this process was started and the trainer do not go together."""
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
    """Make this process one of a group, once, where trainer=ddp asks for it; raises as `check` does."""
    check(trainer)
    if trainer.get("strategy") == "ddp" and not dist.is_initialized():
        on_gpu = trainer.get("accelerator") != "cpu"
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)


def count() -> int:
    """Processes at a run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def one_after_another(arguments: list[str]) -> list[str]:
    """Under torchrun, which has started all processes that there are to be, the override by which Hydra runs jobs here.

    Raises ValueError for a launcher that starts others.
    """
    if started() is None:
        return []
    for word in arguments:
        if word.startswith("hydra/launcher=") and word != "hydra/launcher=basic":
            raise ValueError(f"{word}: torchrun has started the processes of all runs; accepted: hydra/launcher=basic")
    return [] if "hydra/launcher=basic" in arguments else ["hydra/launcher=basic"]


def on_this_machine() -> int:
    """Processes at the run here."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if count() > 1 else 1


def of_first(call: Callable[[], T]) -> T:
    """The first process makes the call, and all return its result. Where it raises, so does it, and the others raise
    ValueError with the same text.
    """
    if count() == 1:
        return call()
    said: list[Any] = [None, None]
    failed: Exception | None = None
    if rank() == 0:
        try:
            said[0] = call()
        except Exception as error:
            said[1], failed = str(error), error
    dist.broadcast_object_list(said)
    if failed is not None:
        raise failed
    if said[1] is not None:
        raise ValueError(said[1])
    result: T = said[0]
    return result


def most(*numbers: int) -> list[int]:
    """Of each number, the largest that any process has."""
    if count() == 1:
        return list(numbers)
    found = torch.tensor(numbers)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [int(number) for number in found]


def mean(own: Tensor) -> Tensor:
    """Over the processes."""
    return own if count() == 1 else all_reduce_sum(own) / count()


def mean_gradient(grad: Tensor) -> Tensor:
    """Over the processes, of a gradient that is dense, or has some rows of a table (sparse)."""
    if not grad.is_sparse:
        return mean(grad)
    rows, gradients = rows_and_gradients(grad)
    (room,) = most(len(rows))
    own = rows.new_full((room,), -1), gradients.new_zeros(room, gradients.shape[1])
    own[0][: len(rows)], own[1][: len(rows)] = rows, gradients
    of_all = []
    for one in own:
        parts = [torch.empty_like(one) for _ in range(count())]
        dist.all_gather(parts, one)
        of_all.append(torch.cat(parts))
    kept = of_all[0] >= 0
    indices, values = of_all[0][None, kept], of_all[1][kept] / count()
    return torch.sparse_coo_tensor(indices, values, grad.shape, check_invariants=False).coalesce()


def for_shards(kernels: Kernels) -> Kernels:
    """For tables whose columns are on several processes: what a rule keeps once for a row is of the whole row."""

    def squares(grad: Tensor) -> Tensor:
        return mean(mean_squares(grad))

    adagrad, adam = partial(adagrad_rows, squares=squares), partial(adam_rows, squares=squares)
    return replace(kernels, adagrad_rows=adagrad, adam_rows=adam)
