"""Settings of optimizers and schedules. Those of value tables are in optim/rules.py."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from memlayers.checks import at_least, one_of, positive, within


class Rule(Protocol):
    """Of value tables, as far as costs depend on it: optim/rules.py."""

    def state_bytes(self, d_value: int, bytes_each: int) -> int: ...

    def columns(self, width: int) -> dict[str, int]: ...


@dataclass
class ScheduleConfig:
    """The factor of a group's peak rate: linear warm-up to 1, then the shape over the remaining steps."""

    warmup: float = 0.03  # share of the steps
    shape: str = "linear"  # linear, cosine, constant, or trapezoid: constant, then linear over the last 40%
    final: float = 0.02  # the least factor after the warm-up

    def validate(self, key: str) -> None:
        within(f"{key}.warmup", self.warmup, 0, 1)
        within(f"{key}.final", self.final, 0, 1)
        one_of(f"{key}.shape", self.shape, ("linear", "cosine", "constant", "trapezoid"))


@dataclass
class RoleConfig:
    """Settings of all parameters of one role."""

    lr_mul: float = 1.0
    weight_decay: float = 0.0

    def validate(self, key: str) -> None:
        at_least(f"{key}.lr_mul", self.lr_mul, 0)
        at_least(f"{key}.weight_decay", self.weight_decay, 0)


# Roles of parameters, declared by their modules (layers/feedforward.py), without value tables, which have a rule.
ROLES = ("matrix", "output", "vector", "bias", "filter", "embedding", "memory_key")


@dataclass
class OptimConfig:
    """AdamW (for matrices optionally Muon) and the rule of value tables; each role multiplies the rate."""

    lr: float = 3e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    clip: float | None = 1.0  # largest norm of all gradients but those of value tables
    clip_values: float | None = None  # largest norm of the gradients of value tables
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    roles: dict[str, RoleConfig] = field(default_factory=lambda: {role: RoleConfig() for role in ROLES})
    values: Any = None  # the rule of value tables, such as optim.RowwiseAdagrad; null for models without tables
    muon_lr: float | None = None  # rate of Muon for matrices; null: AdamW

    def validate(self) -> None:
        positive("optim.lr", self.lr)
        valid_betas("optim", self.betas)
        positive("optim.eps", self.eps)
        positive("optim.muon_lr", self.muon_lr, or_null=True)
        positive("optim.clip", self.clip, or_null=True)
        positive("optim.clip_values", self.clip_values, or_null=True)
        self.schedule.validate("optim.schedule")
        for name, role in self.roles.items():
            role.validate(f"optim.roles.{name}")
        if self.values is not None:
            if not hasattr(self.values, "build"):
                raise ValueError(f"optim.values={self.values!r} is no rule; accepted: a choice such as values=sgd")
            self.values.validate("optim.values")


def valid_betas(key: str, betas: list[float]) -> None:
    if len(betas) != 2 or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
        raise ValueError(f"{key}.betas={betas} is not accepted; accepted: two numbers from 0 to below 1")
