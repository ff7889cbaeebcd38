"""Roles -> groups -> optimizers and schedules. Every parameter is in exactly one group; values have their own."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from memlayers.config import OptimConfig, ScheduleConfig, ValuesConfig
from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.pool import MemoryPool
from memlayers.lazy import LazyAdam, LazySGD, OnePass, RowwiseAdagrad
from memlayers.model import parameters_with_roles

MATRICES = ("matrix", "output")  # roles that Muon may take (Jordan et al. 2024): keys are lists of vectors, not maps


def build_optimizers(model: nn.Module, config: OptimConfig, kernels: Kernels = REFERENCE) -> list[Optimizer]:
    """AdamW, then Muon over matrices where it is asked for, then, where there are tables, their gradients' optimizer.

    Raises ValueError for a role without settings.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    sparse: set[bool] = set()
    for module in model.modules():
        if "memory_value" in getattr(module, "param_roles", {}).values():
            sparse.add(bool(module.sparse))
    for name, role, parameter in parameters_with_roles(model):
        if role != "memory_value" and role not in config.roles:
            raise ValueError(f"optim.roles has no {role!r}, the role of {name}; known: {sorted(config.roles)}")
        groups.setdefault(role, []).append(parameter)
    values = groups.pop("memory_value", [])
    owned = [id(p) for params in groups.values() for p in params] + [id(p) for p in values]
    assert sorted(owned) == sorted(id(p) for p in model.parameters()), "each parameter belongs to exactly one group"

    by_muon = {role for role in groups if takes_muon(role, config)}

    def settings(roles: Iterable[str]) -> list[dict[str, Any]]:
        return [
            {
                "params": groups[role],
                "role": role,
                "lr": peak_rate(role, config),
                "weight_decay": config.roles[role].weight_decay,
            }
            for role in sorted(roles)
        ]

    betas = (config.betas[0], config.betas[1])
    optimizers: list[Optimizer] = [AdamW(settings(groups.keys() - by_muon), betas=betas, eps=config.eps, fused=True)]
    if by_muon:
        optimizers.append(Muon(settings(by_muon)))
    if values:
        optimizers.append(value_optimizer(values, config.values, kernels, sparse == {True}))
        optimizers[-1].param_groups[0]["role"] = "memory_value"
    return optimizers


def takes_muon(role: str, config: OptimConfig) -> bool:
    return config.muon_lr is not None and role in MATRICES


def rule_of(role: str, config: OptimConfig, sparse: bool) -> str:
    """adamw, muon, or the rule of the values; these are stepped on by AdamW where their gradients are not sparse."""
    if role == "memory_value":
        return config.values.rule if sparse else "adamw"
    return "muon" if takes_muon(role, config) else "adamw"


def peak_rate(role: str, config: OptimConfig) -> float:
    """The rate that the schedule multiplies."""
    if role == "memory_value":
        return config.values.lr
    rate = config.muon_lr if takes_muon(role, config) else config.lr
    assert rate is not None
    return rate * config.roles[role].lr_mul


@contextmanager
def stepping_in_backward(model: nn.Module, optimizers: list[Optimizer], config: OptimConfig) -> Iterator[None]:
    """Within, backward updates the tables that allow it: read by one layer, not clipped, by a rule of one pass."""
    readers = [pool for module in model.modules() if isinstance(pool := getattr(module, "pool", None), MemoryPool)]
    alone = [(pool, pool.read) for pool in readers if readers.count(pool) == 1 and config.clip_values is None]
    for rule in optimizers:
        for pool, _ in alone:
            if isinstance(rule, OnePass):
                rule.step_in_backward(pool)
    try:
        yield
    finally:
        for pool, read in alone:
            pool.read = read


def value_optimizer(values: list[nn.Parameter], config: ValuesConfig, kernels: Kernels, sparse: bool) -> Optimizer:
    """The rule for value tables; with dense gradients it is AdamW over all rows."""
    betas = (config.betas[0], config.betas[1])
    if not sparse:
        return AdamW(values, config.lr, betas, config.eps, config.weight_decay, fused=True)
    if config.rule == "rowwise_adagrad":
        return RowwiseAdagrad(values, config.lr, config.eps, kernels)
    if config.rule == "sgd":
        return LazySGD(values, config.lr, kernels)
    return LazyAdam(values, config.lr, betas, config.eps, config.rule == "rowwise_adam", kernels)


def build_schedules(optimizers: list[Optimizer], config: OptimConfig, steps: int) -> list[LambdaLR]:
    """One schedule an optimizer; it multiplies each group's own rate."""

    def shape(optimizer: Optimizer) -> ScheduleConfig:
        return config.values.schedule if optimizer.param_groups[0]["role"] == "memory_value" else config.schedule

    return [LambdaLR(optimizer, schedule_factor(shape(optimizer), steps)) for optimizer in optimizers]


def schedule_factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Step (from 0) -> share of the rate, in (0, 1]."""
    warmup = config.warmup * steps

    def factor(step: int) -> float:
        done = min(1.0, step / max(1, steps))
        falling = {
            "linear": 1 - done,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "constant": 1.0,
            "trapezoid": min(1.0, (1 - done) / 0.4),
        }[config.shape]
        return min(1.0, (step + 1) / max(1.0, warmup)) * max(config.final, falling)

    return factor


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> None:
    """Scale gradients, dense and sparse, so that their joint Euclidean norm is at most max_norm; null does nothing."""
    if max_norm is None:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    parts: list[Tensor] = []
    for grad in grads:
        parts.append(grad.coalesce().values() if grad.is_sparse else grad)
    if not parts:
        return
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part.float()) for part in parts]))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale)
