"""Settings of optimizers and schedules."""

from dataclasses import dataclass, field

from memlayers.config.checks import one_of, within


@dataclass
class ScheduleConfig:
    """Multiplies a group's own rate: linear warm-up, then the shape, down to `final` of the rate."""

    warmup: float = 0.03  # share of the steps
    shape: str = "linear"  # linear, cosine, constant, or trapezoid: constant, then linear over the last 40%
    final: float = 0.02

    def validate(self, key: str) -> None:
        within(f"{key}.warmup", self.warmup, 0, 1)
        within(f"{key}.final", self.final, 0, 1)
        one_of(f"{key}.shape", self.shape, ("linear", "cosine", "constant", "trapezoid"))


@dataclass
class RoleConfig:
    """Settings of all parameters of one role."""

    lr_mul: float = 1.0
    weight_decay: float = 0.0


@dataclass
class ValuesConfig:
    """Settings of value tables: a rule on the rows that were read (or AdamW on all, with model.ffn.sparse=false)."""

    rule: str = "lazy_adam"  # lazy_adam, rowwise_adam (one second moment a row), rowwise_adagrad, sgd
    lr: float = 3e-2
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    weight_decay: float = 0.0  # of dense gradients only: lazy rows do not decay
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


@dataclass
class OptimConfig:
    """AdamW, or Muon for matrices, but for value tables; each role has its own multiple of the rate."""

    lr: float = 3e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    clip: float | None = 1.0  # norm of all gradients but the values'
    clip_values: float | None = None  # norm of the values' gradients
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    roles: dict[str, RoleConfig] = field(default_factory=dict)
    values: ValuesConfig = field(default_factory=ValuesConfig)
    muon_lr: float | None = None  # of matrices, by Muon; null leaves them to AdamW

    def validate(self, sparse: bool) -> None:
        for key, lr, betas in (("optim", self.lr, self.betas), ("optim.values", self.values.lr, self.values.betas)):
            if not lr > 0:
                raise ValueError(f"{key}.lr={lr} is not positive; accepted: a number above 0")
            if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
                raise ValueError(f"{key}.betas={betas} is not accepted; accepted: two numbers from 0 to below 1")
        if self.muon_lr is not None and not self.muon_lr > 0:
            raise ValueError(f"optim.muon_lr={self.muon_lr} is not positive; accepted: a number above 0, or null")
        for key, clip in (("optim.clip", self.clip), ("optim.clip_values", self.clip_values)):
            if clip is not None and not clip > 0:
                raise ValueError(f"{key}={clip} is not positive; accepted: a number above 0, or null")
        one_of("optim.values.rule", self.values.rule, ("lazy_adam", "rowwise_adam", "rowwise_adagrad", "sgd"))
        if not sparse and self.values.rule != "lazy_adam":
            raise ValueError(
                f"optim.values.rule={self.values.rule} steps on rows that were read, and model.ffn.sparse=false reads "
                "none apart; accepted: lazy_adam (which stands for AdamW there), or model.ffn.sparse=true"
            )
        if sparse and self.values.weight_decay:
            raise ValueError(
                f"optim.values.weight_decay={self.values.weight_decay} has no effect on rows that are not read; "
                "accepted: 0, or any with model.ffn.sparse=false"
            )
        self.schedule.validate("optim.schedule")
        self.values.schedule.validate("optim.values.schedule")
