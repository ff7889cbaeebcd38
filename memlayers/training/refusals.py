"""Checks before training: what the device, the memory or the processes of a run do not support."""

from typing import Any

import torch

from memlayers.config import RunConfig
from memlayers.kernels import selected_implementation
from memlayers.model import Transformer
from memlayers.training import ranks
from memlayers.training.plan import Plan


def room_for(config: RunConfig, chosen: Plan) -> tuple[Any, ...]:
    """The arguments of cost.refuse_too_large for a run."""
    shards = ranks.count() if config.shard_tables else 1
    words = len(chosen.text.vocabulary), config.optim.values, chosen.text.questions()
    models = 1 if config.federated.way is None else config.federated.clients + 2  # the common one, first and now
    return chosen.matched.model, *words, models * ranks.on_this_machine(), shards


def refuse_device(device: str, kernels: str, model: Transformer) -> None:
    """Raises ValueError for kernels and dtypes that the device does not support."""
    if device != "cuda":
        return
    if kernels == "native":
        raise ValueError(
            "kernels=native is for the CPU, and the trainer is on a GPU; accepted: auto, reference, triton"
        )
    in_bfloat16 = any(pool.values.dtype == torch.bfloat16 for pool in model.tables())
    if in_bfloat16 and selected_implementation(kernels, on_gpu=True) != "triton":
        raise ValueError(
            f"model.ffn.value_dtype=bfloat16 with kernels={kernels}: torch has no gradient for such reads on a GPU; "
            "accepted: kernels=triton, or value_dtype=float32"
        )
