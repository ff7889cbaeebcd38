"""Settings of distillation from a trained teacher."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlayers.checks import one_of, positive, within

DIGEST = 12  # hexadecimal digits of a digest, at the end of a run's file name


@dataclass
class DistilConfig:
    """The model in training, the student, learns from text and from a teacher's predictions: training/teacher.py."""

    teacher: str | None = (
        None  # STUDY/ARM of runs with save_model=true; the one with this run's world and seed is taken
    )
    weight: float = 0.5  # of the teacher's loss; text has 1 - weight. 0: the two are only compared at the end
    tokens: str = "all"  # which tokens the teacher's loss covers: all scored ones, answers, or others
    temperature: float = 1.0  # of both distributions

    def validate(self, loss: str, keeps: str | None) -> None:
        """`loss`: training.loss; `keeps`: STUDY/ARM under which the student is saved, or None."""
        within("distil.weight", self.weight, 0, 1)
        one_of("distil.tokens", self.tokens, ("all", "answers", "others"))
        positive("distil.temperature", self.temperature)
        if self.teacher is None:
            return
        parts = self.teacher.split("/")
        if len(parts) != 2 or any(not part or part.startswith(".") for part in parts):
            raise ValueError(
                f"distil.teacher={self.teacher} names no runs; accepted: STUDY/ARM of runs with save_model=true, such "
                "as single/memory"
            )
        if loss == "answers" and self.tokens == "others":
            raise ValueError("distil.tokens=others: only answers are scored; accepted: all, or training.loss=all")
        if self.teacher == keeps:
            raise ValueError(
                f"save_model=true: the student would be kept among its teachers, {keeps}; accepted: false, or another "
                "study"
            )


def teachers(config: Any) -> list[Path]:
    """The saved models that match a RunConfig's distil.teacher: of its study and arm, and the run's world and seed."""
    study, _, arm = config.distil.teacher.partition("/")
    name = f"{glob.escape(arm)}-s{config.seed}-{'[0-9a-f]' * DIGEST}.safetensors"  # as training/record.py names them
    return sorted((Path(config.results) / study / config.world.name).glob(name))
