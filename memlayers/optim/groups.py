"""Roles -> groups -> optimizers. Every parameter is in exactly one group; value tables have their own optimizer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from memlayers.config import OptimConfig
from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.pool import readers
from memlayers.layers.sharded_pool import all_gather
from memlayers.model import parameters_with_roles
from memlayers.optim.muon import Muon
from memlayers.optim.rows import RowOptimizer
from memlayers.optim.rules import rule_name

# Roles for Muon (Jordan et al. 2024). Memory keys are lists of vectors, not linear maps.
MATRICES = ("matrix", "output")


def build_optimizers(model: nn.Module, config: OptimConfig, kernels: Kernels = REFERENCE) -> list[Optimizer]:
    """AdamW, then Muon for matrices if config.muon_lr is set, then the rule of value tables.

    Raises ValueError for a role without settings, and for tables without a rule.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, role, parameter in parameters_with_roles(model):
        if not parameter.requires_grad:
            continue
        if role != "memory_value" and role not in config.roles:
            raise ValueError(f"optim.roles has no {role!r}, the role of {name}; known: {sorted(config.roles)}")
        groups.setdefault(role, []).append(parameter)
    values = groups.pop("memory_value", [])

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

    by_muon = {role for role in groups if takes_muon(role, config)}
    betas = (config.betas[0], config.betas[1])
    optimizers: list[Optimizer] = []
    if by_adamw := groups.keys() - by_muon:  # empty if all but tables is frozen
        optimizers.append(AdamW(settings(by_adamw), betas=betas, eps=config.eps, fused=True))
    if by_muon:
        optimizers.append(Muon(settings(by_muon)))
    if values:
        if config.values is None:
            raise ValueError("optim.values is not set, and the model has value tables; accepted: a rule, as values=sgd")
        optimizers.append(config.values.build(values, kernels))
        optimizers[-1].param_groups[0]["role"] = "memory_value"
    return optimizers


def takes_muon(role: str, config: OptimConfig) -> bool:
    """Whether Muon trains the parameters of a role."""
    return config.muon_lr is not None and role in MATRICES


def rule_of(role: str, config: OptimConfig) -> str:
    """The name of what trains a role: adamw, muon, or the rule of the value tables."""
    if role == "memory_value":
        return rule_name(config.values)
    return "muon" if takes_muon(role, config) else "adamw"


def peak_rate(role: str, config: OptimConfig) -> float:
    """The learning rate of a role at the peak of its schedule."""
    if role == "memory_value":
        return float(config.values.lr)
    rate = config.muon_lr if takes_muon(role, config) else config.lr
    assert rate is not None
    return rate * config.roles[role].lr_mul


@contextmanager
def fused_updates(model: nn.Module, optimizers: list[Optimizer], config: OptimConfig) -> Iterator[None]:
    """Context in which backward updates the rows of pools by their optimizer's rule (MemoryPool.update).

    Only for pools that one layer reads once, without gradient clipping, and for rules that keep one number a row at
    most.
    """
    pools = [layer.pool for layer in readers(model)]
    once = getattr(model, "loops", 1) == 1 and config.clip_values is None
    alone = [pool for pool in pools if pools.count(pool) == 1 and once and pool.values.requires_grad]
    try:
        for rule in optimizers:
            for pool in alone:
                if isinstance(rule, RowOptimizer):
                    pool.update = rule.update_of(pool.values)
        yield
    finally:
        for pool in alone:
            pool.update = None


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None, sharded: bool = False) -> None:
    """Scale gradients, dense and sparse, so that their joint Euclidean norm is at most max_norm; None does nothing.

    With `sharded`, gradients are of local columns: the norm is over all columns, and all processes call together.
    """
    if max_norm is None:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    parts: list[Tensor] = []
    for grad in grads:
        parts.append(grad.coalesce().values() if grad.is_sparse else grad)
    if not parts:
        return
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part.float()) for part in parts]))
    if sharded:
        norm = torch.linalg.vector_norm(all_gather(norm[None], dist.get_world_size()))
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale)
