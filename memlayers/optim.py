"""Roles -> groups -> optimizers and schedules. Every parameter is in exactly one group; values have their own."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from memlayers.config import OptimConfig, ScheduleConfig
from memlayers.model import parameters_with_roles


class LazyAdam(Optimizer):
    """Adam on the rows that have a gradient; the others keep value and moments as they are.

    A skipped step does not decay a row's moments. Bias correction counts the steps of the table, not of the row
    (as torch.optim.SparseAdam does), so the first update of a row met late is (1 - b1) / sqrt(1 - b2) of a full one:
    1.0 with betas 0.9 and 0.99, but 3.2 with 0.9 and 0.999. Moments are float32 whatever the values are.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, except that torch would round the moments to the dtype of the values."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        values = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved, values, strict=True):
            for name in ("mean", "square") if index in state_dict["state"] else ():
                moment = state_dict["state"][index][name]
                self.state[parameter][name] = moment.to(parameter.device, torch.float32, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for values in group["params"]:
                if values.grad is None:
                    continue
                grad = values.grad.coalesce()
                rows, row_grad = grad.indices()[0], grad.values().float()
                state = self.state[values]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(values, dtype=torch.float32)
                    state["square"] = torch.zeros_like(values, dtype=torch.float32)
                state["step"] += 1
                mean = state["mean"].index_select(0, rows).lerp_(row_grad, 1 - beta1)
                square = state["square"].index_select(0, rows).mul_(beta2).addcmul_(row_grad, row_grad, value=1 - beta2)
                state["mean"].index_copy_(0, rows, mean)
                state["square"].index_copy_(0, rows, square)
                rate = group["lr"] / (1 - beta1 ** state["step"])
                scale = square.div_(1 - beta2 ** state["step"]).sqrt_().add_(group["eps"])
                new = values.index_select(0, rows).float().addcdiv_(mean, scale, value=-rate)
                values.index_copy_(0, rows, new.to(values.dtype))
        return loss


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """AdamW over everything but value tables, then, where there are tables, the optimizer of their gradient's kind.

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

    dense_groups = [
        {
            "params": params,
            "role": role,
            "lr": config.lr * config.roles[role].lr_mul,
            "weight_decay": config.roles[role].weight_decay,
        }
        for role, params in sorted(groups.items())
    ]
    optimizers: list[Optimizer] = [
        AdamW(dense_groups, betas=tuple(config.betas), eps=config.eps, fused=True)  # type: ignore[arg-type]
    ]
    if values:
        own = config.values
        betas = (own.betas[0], own.betas[1])
        optimizers.append(
            LazyAdam(values, own.lr, betas, own.eps)
            if sparse == {True}
            else AdamW(values, own.lr, betas, own.eps, own.weight_decay, fused=True)
        )
        optimizers[-1].param_groups[0]["role"] = "memory_value"
    return optimizers


def build_schedules(optimizers: list[Optimizer], config: OptimConfig, steps: int) -> list[LambdaLR]:
    """One schedule an optimizer; it multiplies each group's own rate."""
    shapes = [config.schedule, config.values.schedule]
    return [
        LambdaLR(optimizer, schedule_factor(shape, steps)) for optimizer, shape in zip(optimizers, shapes, strict=False)
    ]


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
