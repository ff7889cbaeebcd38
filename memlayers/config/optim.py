"""Settings of optimizers and schedules. The rules of value tables have theirs beside them, in optim/rows.py."""

from dataclasses import dataclass, field
from typing import Any

from memlayers.checks import one_of, within


@dataclass
class ScheduleConfig:
    """Multiplies a group's own rate: linear warm-up to the whole rate, then the shape over the steps that are left."""

    warmup: float = 0.03  # share of the steps
    shape: str = "linear"  # linear, cosine, constant, or trapezoid: constant, then linear over the last 40%
    final: float = 0.02  # share of the rate below which the shape does not fall

    def validate(self, key: str) -> None:
        within(f"{key}.warmup", self.warmup, 0, 1)
        within(f"{key}.final", self.final, 0, 1)
        one_of(f"{key}.shape", self.shape, ("linear", "cosine", "constant", "trapezoid"))


@dataclass
class RoleConfig:
    """Settings of all parameters of one role."""

    lr_mul: float = 1.0
    weight_decay: float = 0.0


# What a parameter is for, declared where it is made (layers/feedforward.py); value tables have a rule instead.
ROLES = ("matrix", "output", "vector", "bias", "filter", "embedding", "memory_key")


@dataclass
class OptimConfig:
    """AdamW, or Muon for matrices, but for value tables; each role has its own multiple of the rate."""

    lr: float = 3e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    clip: float | None = 1.0  # norm of all gradients but the values'
    clip_values: float | None = None  # norm of the values' gradients
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    roles: dict[str, RoleConfig] = field(default_factory=lambda: {role: RoleConfig() for role in ROLES})
    values: Any = None  # the rule of value tables, as optim.RowwiseAdagrad; for models with any
    muon_lr: float | None = None  # of matrices, by Muon; null leaves them to AdamW

    def validate(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"optim.lr={self.lr} is not positive; accepted: a number above 0")
        valid_betas("optim", self.betas)
        if self.muon_lr is not None and not self.muon_lr > 0:
            raise ValueError(f"optim.muon_lr={self.muon_lr} is not positive; accepted: a number above 0, or null")
        for key, clip in (("optim.clip", self.clip), ("optim.clip_values", self.clip_values)):
            if clip is not None and not clip > 0:
                raise ValueError(f"{key}={clip} is not positive; accepted: a number above 0, or null")
        self.schedule.validate("optim.schedule")
        if self.values is not None:
            if not hasattr(self.values, "build"):
                raise ValueError(f"optim.values={self.values!r} is no rule; accepted: a choice such as values=sgd")
            self.values.validate("optim.values")


def valid_betas(key: str, betas: list[float]) -> None:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"{key}.betas={betas} is not accepted; accepted: two numbers from 0 to below 1")
