"""Update rules of value tables, whose settings come from conf/values/."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from memlayers.checks import at_least, positive
from memlayers.config.optim import ScheduleConfig, valid_betas
from memlayers.kernels import REFERENCE, Kernels
from memlayers.optim.rows import RowOptimizer

State = dict[str, Any]  # of a table: "step", and tensors (n, columns)


@dataclass
class ValueRule:
    """Base of all rules. The rate of values is constant after its warm-up: decay costs recall (LOG.md)."""

    sparse: ClassVar[bool] = True  # false: updates all rows, with a dense gradient
    lr: float = 1.0
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(shape="constant"))

    def validate(self, key: str) -> None:
        positive(f"{key}.lr", self.lr)
        self.schedule.validate(f"{key}.schedule")

    def build(self, values: list[nn.Parameter], kernels: Kernels = REFERENCE) -> Optimizer:
        return RowOptimizer(values, self, kernels)

    @property
    def fused_eps(self) -> float | None:
        """The eps of a rule that backward can apply, as it keeps one number a row at most; None for all others."""
        return None

    def columns(self, width: int) -> dict[str, int]:
        """The float32 state of a row of this width, by name: how many numbers."""
        return {}

    def update(self, kernels: Kernels, values: Tensor, state: State, rows: Tensor, grad: Tensor, lr: float) -> None:
        """Update distinct rows (u,) with gradients (u, d), in place."""
        raise NotImplementedError

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        """Bytes of optimizer state, and of a dense gradient, for a row of d_value numbers of bytes_each."""
        return 4 * sum(self.columns(d_value).values())


@dataclass
class LazyAdam(ValueRule):
    """Adam on the rows that were read. With `rowwise`, a row has one second moment instead of one a number."""

    lr: float = 0.3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    rowwise: bool = False

    def validate(self, key: str) -> None:
        super().validate(key)
        valid_betas(key, self.betas)
        positive(f"{key}.eps", self.eps)

    def columns(self, width: int) -> dict[str, int]:
        return {"mean": width, "square": 1 if self.rowwise else width}

    def update(self, kernels: Kernels, values: Tensor, state: State, rows: Tensor, grad: Tensor, lr: float) -> None:
        betas, step = (self.betas[0], self.betas[1]), state["step"]
        moments = state["mean"], state["square"]
        kernels.adam_rows(values, *moments, rows, grad, rate=lr, betas=betas, eps=self.eps, step=step)


@dataclass
class RowwiseAdagrad(ValueRule):
    """Adagrad with one sum of squares a row, as used for embedding tables of recommenders."""

    lr: float = 5.0
    eps: float = 1e-8

    def validate(self, key: str) -> None:
        super().validate(key)
        positive(f"{key}.eps", self.eps)

    @property
    def fused_eps(self) -> float:
        return self.eps

    def columns(self, width: int) -> dict[str, int]:
        return {"total": 1}

    def update(self, kernels: Kernels, values: Tensor, state: State, rows: Tensor, grad: Tensor, lr: float) -> None:
        kernels.adagrad_rows(values, state["total"], rows, grad, rate=lr, eps=self.eps)


@dataclass
class SGD(ValueRule):
    """Gradient descent on the rows that were read, without state."""

    lr: float = 3e4

    @property
    def fused_eps(self) -> float:
        return 0.0

    def update(self, kernels: Kernels, values: Tensor, state: State, rows: Tensor, grad: Tensor, lr: float) -> None:
        kernels.sgd_rows(values, rows, grad, rate=lr)


@dataclass
class DenseAdamW(ValueRule):
    """AdamW on all rows, the control without sparse updates."""

    sparse: ClassVar[bool] = False
    lr: float = 3e-2
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.0

    def validate(self, key: str) -> None:
        super().validate(key)
        valid_betas(key, self.betas)
        positive(f"{key}.eps", self.eps)
        at_least(f"{key}.weight_decay", self.weight_decay, 0)

    def build(self, values: list[nn.Parameter], kernels: Kernels = REFERENCE) -> Optimizer:
        return AdamW(values, self.lr, (self.betas[0], self.betas[1]), self.eps, self.weight_decay, fused=True)

    def state_bytes(self, d_value: int, bytes_each: int) -> int:
        return 3 * bytes_each * d_value  # two moments and the gradient


RULES = {"lazy_adam": LazyAdam, "rowwise_adagrad": RowwiseAdagrad, "sgd": SGD, "adamw": DenseAdamW}


def rule_name(rule: ValueRule) -> str:
    """The name of a rule in conf/values/, where a row-wise LazyAdam is rowwise_adam."""
    name = next(name for name, kind in RULES.items() if type(rule) is kind)
    return "rowwise_adam" if isinstance(rule, LazyAdam) and rule.rowwise else name
