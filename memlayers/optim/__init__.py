"""Optimizers and schedules: groups of parameters by role, and update rules of value tables."""

from memlayers.optim.groups import build_optimizers, clip_gradients, fused_updates
from memlayers.optim.rules import SGD, DenseAdamW, LazyAdam, RowwiseAdagrad
from memlayers.optim.schedule import build_schedules

__all__ = [
    "SGD",
    "DenseAdamW",
    "LazyAdam",
    "RowwiseAdagrad",
    "build_optimizers",
    "build_schedules",
    "clip_gradients",
    "fused_updates",
]
