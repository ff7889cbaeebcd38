"""Settings of learning from a trained model, the teacher."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memlayers.checks import one_of, within

DIGEST = 12  # hexadecimal digits, with which the name of a run ends


@dataclass
class DistilConfig:
    """The student, the model in training, learns from text and from a teacher's predictions: training/teacher.py."""

    teacher: str | None = None  # STUDY/ARM: of those runs, with save_model=true, the one of this run's world and seed
    weight: float = 0.5  # of the teacher's predictions; the text has the rest. 0: the two are only compared at the end
    tokens: str = "all"  # where it teaches: all scored tokens; answers, the facts; or others, the phrasing
    temperature: float = 1.0  # of both distributions

    def validate(self, loss: str, keeps: str | None) -> None:
        """`loss`: training.loss; `keeps`: STUDY/ARM under which the student is kept, if it is."""
        within("distil.weight", self.weight, 0, 1)
        one_of("distil.tokens", self.tokens, ("all", "answers", "others"))
        if not self.temperature > 0:
            raise ValueError(f"distil.temperature={self.temperature} is not positive; accepted: a number above 0")
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
    """Models that a RunConfig's distil.teacher may mean: of that study and arm, and of the run's world and seed."""
    study, _, arm = config.distil.teacher.partition("/")
    name = f"{glob.escape(arm)}-s{config.seed}-{'[0-9a-f]' * DIGEST}.safetensors"  # as training/record.py names them
    return sorted((Path(config.results) / study / config.world.name).glob(name))
