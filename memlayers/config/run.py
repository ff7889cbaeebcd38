"""Settings of one run, and the digest that says whether two runs are the same experiment."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memlayers.config.checks import at_least, one_of, within
from memlayers.config.model import MatchConfig, ModelConfig
from memlayers.config.optim import OptimConfig
from memlayers.config.worlds import WorldConfig


@dataclass
class TrainingConfig:
    """How long, on what, and what is looked at on the way."""

    exposures: float = 24.0  # mean number of times that a fact is shown, in whatever phrasing
    batch_tokens: int = 1024  # input positions a step; the number of documents follows from their mean length
    loss: str = "answers"  # answers: on objects only; all: on every token
    probes: int = 16  # recall measurements on the way, evenly spaced
    max_probed_facts: int = 4096  # a seeded sample of the facts for those; the last one asks all of them
    steps: int | None = None  # instead of exposures: for tests and benchmarks

    def validate(self) -> None:
        if not self.exposures > 0:
            raise ValueError(f"training.exposures={self.exposures} is not positive; accepted: a number above 0")
        within("training.batch_tokens", self.batch_tokens, 1, 2**22)
        one_of("training.loss", self.loss, ("answers", "all"))
        at_least("training.probes", self.probes, 1)
        at_least("training.max_probed_facts", self.max_probed_facts, 1)
        if self.steps is not None:
            at_least("training.steps", self.steps, 1)


@dataclass
class RunConfig:
    """One run: above the empty line what decides its numbers, below it what only names, shows or stores them."""

    world: WorldConfig
    model: ModelConfig
    match: MatchConfig
    optim: OptimConfig
    training: TrainingConfig
    trainer: dict[str, Any]  # arguments of lightning.Trainer: accelerator, precision, ...
    threads: int = 1  # of torch; one a process is fastest for tiny models, and makes digits repeatable
    seed: int = 0  # of the model and of the order of documents; facts follow from world.seed. Not in the digest

    kernels: str = "auto"  # auto, native (C on the CPU), reference or triton (reads, on a GPU): sums in another order
    study: str = "single"
    arm: str = "memory"
    results: str = "results/local"
    logger: dict[str, Any] | None = None  # a Lightning logger's _target_ and arguments
    checkpoint: str | None = None  # resume from this file
    save_checkpoint: bool = False
    progress: str = "auto"  # auto: a bar on a terminal, lines elsewhere; none

    def validate(self) -> None:
        for key, value in flatten(asdict(self)).items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{key}={value} is not a number to work with; accepted: a finite one")
        for key, name in (("study", self.study), ("arm", self.arm), ("world.name", self.world.name)):
            if not name or "/" in name or name.startswith("."):
                raise ValueError(f"{key}={name} cannot name a folder or file; accepted: a name without /")
        self.world.validate()
        templates = getattr(self.world, "templates", None)
        if templates is not None and self.world.text != "prose":
            raise ValueError(f"world.templates={templates} would tell nothing; accepted: with world.text=prose")
        self.model.validate()
        self.match.validate(self.model.d_model)
        self.optim.validate(getattr(self.model.ffn, "sparse", True))
        if self.optim.muon_lr is not None and not self.model.tied_head:
            raise ValueError(
                f"optim.muon_lr={self.optim.muon_lr} would take the untied head, which Muon is not for; "
                "accepted: null, or model.tied_head=true"
            )
        self.training.validate()
        within("seed", self.seed, 0, 2**31 - 1)
        within("threads", self.threads, 1, 1024)
        one_of(
            "trainer.precision", str(self.trainer.get("precision", "32-true")), ("32-true", "bf16-mixed", "bf16-true")
        )
        if self.trainer.get("devices", 1) != 1:
            raise ValueError(f"trainer.devices={self.trainer.get('devices')}: a run has one device; accepted: 1")
        one_of("kernels", self.kernels, ("auto", "native", "reference", "triton"))
        one_of("progress", self.progress, ("auto", "none"))


NOT_IN_DIGEST = ("kernels", "seed", "study", "arm", "results", "logger", "checkpoint", "save_checkpoint", "progress")


def digest(config: RunConfig) -> str:
    """12 hexadecimal digits that two runs share exactly when they are the same experiment, but for the seed."""
    text = json.dumps(decisive(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decisive(config: RunConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers, as nested dictionaries for a record; files stand as their contents."""
    settings = {key: value for key, value in asdict(config).items() if key not in NOT_IN_DIGEST}
    if settings["optim"]["muon_lr"] is None:  # nothing is decided by what is not used
        del settings["optim"]["muon_lr"]
    if config.match.multiple_of == 1:
        del settings["match"]["multiple_of"]
    if config.model.ffn.name == "dense":
        del settings["optim"]["values"]
    for key in ("path", "templates"):
        name = settings["world"].get(key)
        if isinstance(name, str) and Path(name).is_file():
            settings["world"][key] = "sha256:" + hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    return settings


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every leaf of nested dictionaries."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def apart(settings: list[dict[str, Any]]) -> list[str]:
    """Of each of several flat settings what is not the same in all, as key=value; a key that it lacks is left out."""
    lacks = object()
    keys = dict.fromkeys(key for one in settings for key in one)
    differ = [key for key in keys if any(one.get(key, lacks) != settings[0].get(key, lacks) for one in settings)]
    return [" ".join(f"{key}={one[key]}" for key in differ if key in one) for one in settings]
