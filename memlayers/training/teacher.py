"""Learning from the predictions of a trained model, beside the text (Hinton et al. 2015, arXiv 1503.02531)."""

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
    """A trained model that stays as it is. No module, so that a student that has one neither trains nor saves it."""

    model: Transformer
    settings: DistilConfig
    record: Record  # of its run

    def loss(self, logits: Tensor, documents: Documents, where: Tensor) -> Tensor:
        """Mean in nats over the scored tokens, of which the student says logits (m, vocabulary): those that `where`
        (b, s - 1) is true of.
        """
        tokens, answers, _ = documents
        with torch.no_grad():
            theirs = self.model(tokens[:, :-1], where).logits.float()
        is_answer = answers[:, 1:][where]
        taught = {"all": torch.ones_like(is_answer), "answers": is_answer, "others": ~is_answer}[self.settings.tokens]
        target, weight = tokens[:, 1:][where], self.settings.weight * taught
        return distilled(logits, theirs, target, weight, self.settings.temperature).mean()

    def blocks(self, work: Workload, tokens: float, flops: float) -> dict[str, dict[str, Any]]:
        """What a student's record says of it: which run it is, the FLOPs of its training, with its own teacher's, and
        of its predictions over a training of so many tokens; and in `cost` these with the student's own FLOPs. A
        teacher that is only compared with (weight=0) costs nothing.
        """
        named = {key: self.record[key] for key in ("study", "arm", "seed", "digest")}
        cost = self.record["cost"]
        before = cost.get("training_flops_with_teacher", cost["training_flops"])
        during = self.model.cost(work).forward * tokens
        total = flops + (before + during if self.settings.weight > 0 else 0)
        return {
            "teacher": named | {"training_flops": before, "forward_flops": during},
            "cost": {"training_flops_with_teacher": total},
        }


def distilled(logits: Tensor, theirs: Tensor, target: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """(m,) nats: 1 - weight (m,) of the cross-entropy with target (m,), and weight of the divergence KL(teacher ||
    student) of both distributions at this temperature, times its square, which keeps gradients as large (section 2).
    """
    of_text = F.cross_entropy(logits, target, reduction="none")
    soft, soft_theirs = ((one / temperature).log_softmax(dim=-1) for one in (logits, theirs))
    of_teacher = F.kl_div(soft, soft_theirs, reduction="none", log_target=True).sum(dim=-1)
    return (1 - weight) * of_text + weight * temperature**2 * of_teacher


def teacher_of(config: RunConfig, text: Text, kernels: Kernels) -> Teacher | None:
    """The teacher of a run, whose text this is; None where it has none.

    Raises ValueError, in one line, for a teacher that is not there, or that learnt other facts or words.
    """
    record = finished_teacher(config)
    if record is None:
        return None
    theirs, their_text, model = load(record.pop("path"), kernels=kernels)
    if fingerprint(their_text) != fingerprint(text):
        own, other = (flatten(settings(one.world), "world.") for one in (config, theirs))
        differ = [key for key in own | other if key != "world.name" and own.get(key) != other.get(key)]
        said, accepted = (", ".join(f"{key}={one.get(key)}" for key in differ) for one in (other, own))
        raise ValueError(f"distil.teacher={config.distil.teacher}: learnt {said}; accepted: a teacher of {accepted}")
    return Teacher(model.eval().requires_grad_(False), config.distil, record)
