"""The rules by which value tables are updated: settings, and the optimizer that each builds."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import nn
from torch.optim import AdamW, Optimizer

from memlayers.checks import at_least
from memlayers.config.optim import ScheduleConfig, valid_betas
from memlayers.kernels import Kernels
from memlayers.optim.rows import LazyAdam, LazySGD, RowwiseAdagrad


class Rule(Protocol):
    """What all rules have."""

    sparse: ClassVar[bool]  # steps on the rows that were read; else on all rows, with a gradient as large as the table
    lr: float
    schedule: ScheduleConfig

    def validate(self, key: str) -> None: ...

    def build(self, values: list[nn.Parameter], kernels: Kernels) -> Optimizer: ...

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        """Bytes of optimizer state, and of a dense gradient, for a row of d_value numbers of bytes_each."""
        ...


def constant() -> ScheduleConfig:
    return ScheduleConfig(shape="constant")


@dataclass
class LazyAdamRule:
    """Adam on the rows that were read: two moments for every number; rowwise: one second moment for a row."""

    sparse: ClassVar[bool] = True
    lr: float = 0.3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    rowwise: bool = False
    schedule: ScheduleConfig = field(default_factory=constant)

    def validate(self, key: str) -> None:
        valid_rule(key, self)
        valid_betas(key, self.betas)

    def build(self, values: list[nn.Parameter], kernels: Kernels) -> Optimizer:
        return LazyAdam(values, self.lr, (self.betas[0], self.betas[1]), self.eps, self.rowwise, kernels)

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        return 4 * d_value + (4 if self.rowwise else 4 * d_value)


@dataclass
class RowwiseAdagradRule:
    """Adagrad with one sum of squares for a row."""

    sparse: ClassVar[bool] = True
    lr: float = 5.0
    eps: float = 1e-8
    schedule: ScheduleConfig = field(default_factory=constant)

    def validate(self, key: str) -> None:
        valid_rule(key, self)

    def build(self, values: list[nn.Parameter], kernels: Kernels) -> Optimizer:
        return RowwiseAdagrad(values, self.lr, self.eps, kernels)

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        return 4


@dataclass
class SGDRule:
    """Gradient descent on the rows that were read: no state."""

    sparse: ClassVar[bool] = True
    lr: float = 3e4
    schedule: ScheduleConfig = field(default_factory=constant)

    def validate(self, key: str) -> None:
        valid_rule(key, self)

    def build(self, values: list[nn.Parameter], kernels: Kernels) -> Optimizer:
        return LazySGD(values, self.lr, kernels)

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        return 0


@dataclass
class AdamWRule:
    """AdamW on all rows, with a dense gradient: what a table costs without sparse updates."""

    sparse: ClassVar[bool] = False
    lr: float = 3e-2
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: ScheduleConfig = field(default_factory=constant)

    def validate(self, key: str) -> None:
        valid_rule(key, self)
        valid_betas(key, self.betas)
        at_least(f"{key}.weight_decay", self.weight_decay, 0)

    def build(self, values: list[nn.Parameter], kernels: Kernels) -> Optimizer:
        betas = (self.betas[0], self.betas[1])
        return AdamW(values, self.lr, betas, self.eps, self.weight_decay, fused=True)

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        return 3 * bytes_each * d_value  # two moments and the gradient


RULES = {"lazy_adam": LazyAdamRule, "rowwise_adagrad": RowwiseAdagradRule, "sgd": SGDRule, "adamw": AdamWRule}


def rule_name(rule: Rule) -> str:
    """As in conf/values/, where lazy_adam with one moment for a row is rowwise_adam."""
    name = next(name for name, kind in RULES.items() if type(rule) is kind)
    return "rowwise_adam" if getattr(rule, "rowwise", False) else name


def valid_rule(key: str, rule: Rule) -> None:
    if not rule.lr > 0:
        raise ValueError(f"{key}.lr={rule.lr} is not positive; accepted: a number above 0")
    rule.schedule.validate(f"{key}.schedule")
