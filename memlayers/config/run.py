"""Settings of one run."""

import math
from dataclasses import dataclass, field
from typing import Any

from memlayers.checks import at_least, one_of, positive, within
from memlayers.config.digest import flatten, settings
from memlayers.config.distil import DistilConfig
from memlayers.config.federated import FederatedConfig
from memlayers.config.model import PLACES, MatchConfig, ModelConfig
from memlayers.config.optim import OptimConfig
from memlayers.config.quantize import QuantizeConfig
from memlayers.config.worlds import WorldConfig


@dataclass
class TrainingConfig:
    """The length of training, its batches and loss, and recall measurements during training."""

    exposures: float = 24.0  # mean exposures of a fact in training, over all phrasings
    batch_tokens: int = 1024  # input positions a step; the number of documents follows from their mean length
    loss: str = "answers"  # answers: on objects only; all: on every token
    probes: int = 16  # recall measurements during training, evenly spaced
    max_probed_facts: int = 4096  # size of the seeded sample of facts for probes; the final measurement asks all
    steps: int | None = None  # overrides exposures, for tests and benchmarks

    def validate(self) -> None:
        positive("training.exposures", self.exposures)
        within("training.batch_tokens", self.batch_tokens, 1, 2**22)
        one_of("training.loss", self.loss, ("answers", "all"))
        at_least("training.probes", self.probes, 1)
        at_least("training.max_probed_facts", self.max_probed_facts, 1)
        if self.steps is not None:
            at_least("training.steps", self.steps, 1)


READOUTS = [
    *("recall", "held_out", "held_out_questions", "same_address", "unknown_auroc", "right_at_1", "right_at_5"),
    *("shuffled", "without_tables", "slots_used", "slots_kl", "bits_per_parameter", "flops_per_token"),
    *("training_flops", "params", "seconds"),
]


@dataclass
class ReportConfig:
    """How the records of a study are laid out as table and figure."""

    question: str = ""
    literature: str = ""  # what papers found, with their numbers
    reference: dict[str, Any] = field(
        default_factory=lambda: {"arm": "dense"}
    )  # the runs that all others are compared with; arm: null (in YAML): runs of the same arm
    rows: list[str] = field(default_factory=list)  # axes of the table's rows; empty: all but the seed
    columns: str | None = None  # an axis whose values are columns
    readouts: list[str] = field(default_factory=lambda: list(READOUTS))
    x: str | None = None  # of the figure: an axis or a read-out; null: the only axis of numbers, if there is one
    y: str = "recall"  # or another read-out; recalled: held_out in worlds that have that, recall in others
    frontier: bool = False  # draw fronts, and multiples of the reference's cost, which results/summary.json quotes

    def validate(self) -> None:
        if self.frontier and not (self.columns and self.reference.get("arm")):
            needed = "with report.columns and report.reference={arm: dense}"
            raise ValueError(f"report.frontier=true compares costs of an arm over an axis; accepted: {needed}")


@dataclass
class RatesConfig:
    """Which tuned settings of conf/rates/ a run starts from; overrides of the command come on top."""

    world: str | None = None  # the file in conf/rates/
    arm: str | None = None  # the arm in that file; null: no tuned settings


ON_CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


@dataclass
class RunConfig:
    """One run. Settings above the empty line decide its numbers; those below only name, show or store them."""

    world: WorldConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    match: MatchConfig = field(default_factory=MatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    federated: FederatedConfig = field(default_factory=FederatedConfig)
    trainer: dict[str, Any] = field(default_factory=lambda: dict(ON_CPU))  # arguments of lightning.Trainer
    threads: int = 1  # of torch; one is fastest for tiny models, and makes digits repeatable
    seed: int = 0  # of the model and the order of documents, not of facts (world.seed). Not in the digest

    shard_tables: bool = False  # trainer=ddp: each process has some columns of every table, not all
    kernels: str = "auto"  # auto, native (C on the CPU), reference or triton (on a GPU); they sum in different orders
    study: str = "single"
    arm: str = "memory"
    axes: Any = field(
        default_factory=dict
    )  # {setting that the command sweeps: this run's value}; in a command, a list of keys
    rates: RatesConfig = field(default_factory=RatesConfig)
    num_keys: int = 128  # product keys a half; every table of the world has num_keys**2 slots
    report: ReportConfig = field(default_factory=ReportConfig)
    results: str = "results/local"
    logger: dict[str, Any] | None = None  # a Lightning logger's _target_ and arguments
    save_model: bool = False  # keep the trained model beside the record, for scripts/ask.py and memlayers.load
    checkpoint_minutes: float | None = 10.0  # time between checkpoints; null: none
    progress: str = "auto"  # auto: a bar on a terminal, lines elsewhere; none

    @property
    def on_plain_cpu(self) -> bool:
        """Whether the trainer is that of trainer=cpu, with no other argument."""
        return self.trainer == ON_CPU

    def validate(self) -> None:
        for key, value in flatten(settings(self)).items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{key}={value} is not a number to work with; accepted: a finite one")
        for key, name in (("study", self.study), ("arm", self.arm), ("world.name", self.world.name)):
            if not name or "/" in name or name.startswith("."):
                raise ValueError(f"{key}={name} cannot name a folder or file; accepted: a name without /")
        self.world.validate()
        templates = getattr(self.world, "templates", None)
        if templates is not None and self.world.text != "prose":
            raise ValueError(f"world.templates={templates} has no effect; accepted: with world.text=prose")
        self.model.validate()
        self.match.validate(self.model.d_model)
        self.optim.validate()
        if self.optim.muon_lr is not None and not self.model.tied_head:
            raise ValueError(
                f"optim.muon_lr={self.optim.muon_lr} would take the untied head, which Muon is not for; "
                "accepted: null, or model.tied_head=true"
            )
        self.training.validate()
        if self.world.corpus.share > 0 and self.training.loss != "all":
            raise ValueError(
                f"training.loss={self.training.loss} learns nothing from world.corpus; accepted: training.loss=all"
            )
        within("seed", self.seed, 0, 2**31 - 1)
        within("threads", self.threads, 1, 1024)
        one_of(
            "trainer.precision", str(self.trainer.get("precision", "32-true")), ("32-true", "bf16-mixed", "bf16-true")
        )
        self.validate_quantize()
        self.distil.validate(self.training.loss, f"{self.study}/{self.arm}" if self.save_model else None)
        self.federated.validate(self)
        self.validate_devices()
        self.validate_kernels()
        self.report.validate()
        one_of("progress", self.progress, ("auto", "none"))
        if self.checkpoint_minutes is not None and self.checkpoint_minutes < 0:
            raise ValueError(f"checkpoint_minutes={self.checkpoint_minutes} is negative; accepted: 0 or more, or null")

    def validate_quantize(self) -> None:
        self.quantize.validate()
        for place in ("ffn", *PLACES):
            dtype = getattr(getattr(self.model, place), "value_dtype", "float32")
            if self.quantize.touches_tables and dtype != "float32":
                raise ValueError(
                    f"model.{place}.value_dtype={dtype}: quantize rounds tables in float32; accepted: float32"
                )
        if self.quantize.touches_any and self.trainer.get("precision") == "bf16-true":
            raise ValueError(
                "trainer.precision=bf16-true: quantize rounds parameters in float32; accepted: 32-true, bf16-mixed"
            )

    def validate_kernels(self) -> None:
        one_of("kernels", self.kernels, ("auto", "native", "reference", "triton"))
        for place in ("ffn", *PLACES):
            score = getattr(getattr(self.model, place), "score", "softmax")
            if self.kernels in ("native", "triton") and score != "softmax":
                raise ValueError(
                    f"kernels={self.kernels}: only the reference looks up by model.{place}.score={score}; "
                    "accepted: auto, reference, or score=softmax"
                )

    def validate_devices(self) -> None:
        strategy, devices = str(self.trainer.get("strategy", "auto")), self.trainer.get("devices", 1)
        one_of("trainer.strategy", strategy, ("auto", "single_device", "ddp"))
        one_of(
            "trainer.accelerator", str(self.trainer.get("accelerator", "auto")), ("auto", "cpu", "gpu", "cuda", "mps")
        )
        if strategy != "ddp":
            if devices != 1:
                raise ValueError(f"trainer.devices={devices}: a process has one device; accepted: 1, or trainer=ddp")
            if self.shard_tables:
                raise ValueError("shard_tables=true: there is one process; accepted: with trainer=ddp")
        elif devices != "auto":
            raise ValueError(f"trainer.devices={devices}: torchrun says how many; accepted: auto, as in trainer=ddp")
        if strategy == "ddp" and self.quantize.touches_any:
            raise ValueError("trainer=ddp: quantize rounds a model of one process; accepted: trainer=cpu, trainer=gpu")
