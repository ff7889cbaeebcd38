"""Distillation (Hinton et al. 2015, arXiv 1503.02531): training on a trained model's predictions as well as on text."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memlayers.config import DistilConfig, RunConfig
from memlayers.config.digest import flatten, settings
from memlayers.documents import Documents
from memlayers.kernels import Kernels
from memlayers.layers.feedforward import Workload
from memlayers.model import Transformer
from memlayers.text import Text
from memlayers.training.record import Record, finished_teacher
from memlayers.training.saved_model import fingerprint, load


@dataclass(frozen=True)
class Teacher:
    """A frozen trained model. Not an nn.Module, so that its student neither trains nor saves it."""

    model: Transformer
    settings: DistilConfig
    record: Record  # record of its run

    def loss(self, logits: Tensor, documents: Documents, where: Tensor) -> Tensor:
        """The student's mean loss in nats over the m tokens of the mask `where` (b, s - 1), for which it has logits
        (m, vocabulary).
        """
        tokens, answers, _ = documents
        with torch.no_grad():
            teacher_logits = self.model(tokens[:, :-1], where).logits.float()
        is_answer = answers[:, 1:][where]
        taught = {"all": torch.ones_like(is_answer), "answers": is_answer, "others": ~is_answer}[self.settings.tokens]
        target, weight = tokens[:, 1:][where], self.settings.weight * taught
        return distilled(logits, teacher_logits, target, weight, self.settings.temperature).mean()

    def blocks(self, work: Workload, tokens: float, flops: float) -> dict[str, dict[str, Any]]:
        """The blocks of a student's record about its teacher: which run it is, its training FLOPs (with its own
        teacher's) and the FLOPs of its predictions for `tokens` tokens; and under `cost` the sum of both and the
        student's `flops`. A teacher that is only compared with (weight=0) adds nothing.
        """
        run = {key: self.record[key] for key in ("study", "arm", "seed", "digest")}
        cost = self.record["cost"]
        before = cost.get("training_flops_with_teacher", cost["training_flops"])
        during = self.model.cost(work).forward * tokens
        total = flops + (before + during if self.settings.weight > 0 else 0)
        return {
            "teacher": run | {"training_flops": before, "forward_flops": during},
            "cost": {"training_flops_with_teacher": total},
        }


def distilled(logits: Tensor, teacher_logits: Tensor, target: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """The loss (m,) in nats: (1 - weight) * cross-entropy with target (m,) + weight * temperature^2 * KL(teacher ||
    student), both at this temperature. Its square keeps the scale of gradients (section 2). weight (m,).
    """
    cross_entropy = F.cross_entropy(logits, target, reduction="none")
    soft, soft_teacher = ((given / temperature).log_softmax(dim=-1) for given in (logits, teacher_logits))
    divergence = F.kl_div(soft, soft_teacher, reduction="none", log_target=True).sum(dim=-1)
    return (1 - weight) * cross_entropy + weight * temperature**2 * divergence


def teacher_of(config: RunConfig, text: Text, kernels: Kernels) -> Teacher | None:
    """Load the teacher of a run with this text; None for a run without distillation.

    Raises ValueError, in one line, if the teacher does not exist, or was trained on other facts or another vocabulary.
    """
    record = finished_teacher(config)
    if record is None:
        return None
    teacher_config, teacher_text, model = load(record.pop("path"), kernels=kernels)
    if fingerprint(teacher_text) != fingerprint(text):
        ours, theirs = (flatten(settings(run.world), "world.") for run in (config, teacher_config))
        differ = [key for key in ours | theirs if key != "world.name" and ours.get(key) != theirs.get(key)]
        learnt, accepted = (", ".join(f"{key}={world.get(key)}" for key in differ) for world in (theirs, ours))
        raise ValueError(f"distil.teacher={config.distil.teacher}: learnt {learnt}; accepted: a teacher of {accepted}")
    return Teacher(model.eval().requires_grad_(False), config.distil, record)
