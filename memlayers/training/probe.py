"""Callbacks that measure recall, during training and at its end."""

import time
from statistics import fmean
from typing import Any

import lightning
import torch
from torch import Tensor

from memlayers.config import RunConfig
from memlayers.layers.feedforward import Reads
from memlayers.model import Transformer
from memlayers.quantize import quantize
from memlayers.recall.addresses import reads_of, shared
from memlayers.recall.agreement import agreement
from memlayers.recall.ask import ask, sample_facts
from memlayers.recall.measure import measure
from memlayers.text import Text
from memlayers.training.learner import Batches
from memlayers.training.teacher import Teacher

MOVED = 256  # facts whose reads are compared between probes


def reads_at_answers(model: Transformer, text: Text, facts: Tensor) -> dict[str, Reads]:
    """By layer, the reads at the last token before each answer; {} for a model without tables."""
    reads = reads_of(model, text, facts, "training") if model.tables() else {}
    return {layer: places["at_answer"] for layer, places in reads.items()}


class RecallProbe(lightning.Callback):
    """Measures recall at equal distances, without using the generators of training, and keeps the curve.

    A point has the recall, also in held-out phrasings if there are any, and the share of the reads' weight at answers
    that stayed on the same slots since the last probe.
    """

    def __init__(self, text: Text, batches: Batches, probes: int, max_facts: int):
        self.text, self.batches = text, batches
        self.facts = sample_facts(text.world, max_facts)
        self.at = {max(1, round(batches.steps * (index + 1) / probes)) for index in range(probes)}
        self.exposures = text.mean_exposures * batches.batch_size
        self.curve: list[dict[str, Any]] = []
        self.reads: dict[str, Reads] = {}  # of the last probe
        self.seconds = 0.0  # spent on probes, which is not part of training
        self.before = 0.0  # seconds of the run that is resumed
        self.began = time.perf_counter()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.began = time.perf_counter() - self.before

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = batch_idx + 1
        if step not in self.at:
            return
        started = time.perf_counter()
        with pl_module.as_read():
            answers = ask(pl_module.model, self.text, self.facts, "training")
            held_out = ask(pl_module.model, self.text, self.facts, "held_out").exact
            reads = reads_at_answers(pl_module.model, self.text, self.facts[:MOVED])
        now = time.perf_counter()
        self.curve.append(
            {
                "step": step,
                "exposures": step * self.exposures,
                "recall": float(answers.exact.double().mean()),
                "surprise": float(answers.surprise.double().mean()),
                "loss": pl_module.logged_loss,
            }
            | ({"held_out": float(held_out.double().mean())} if len(held_out) else {})
            | ({"kept": fmean(shared(self.reads[at], reads[at])["weight"] for at in reads)} if self.reads else {})
        )
        pl_module.log("recall", self.curve[-1]["recall"], prog_bar=True)
        self.reads = reads
        self.seconds += now - started

    def state_dict(self) -> dict[str, Any]:
        reads = {place: tuple(reads) for place, reads in self.reads.items()}  # weights_only loads no classes
        elapsed = time.perf_counter() - self.began
        return {"curve": self.curve, "reads": reads, "probing": self.seconds, "elapsed": elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.reads = {place: Reads(*reads) for place, reads in state_dict["reads"].items()}
        self.curve, self.seconds, self.before = state_dict["curve"], state_dict["probing"], state_dict["elapsed"]


class FinalMeasurement(lightning.Callback):
    """At the end of training, rounds the model if the settings say so, and measures all of `recall` in a record. It
    runs before Lightning moves the model from its device to the CPU.
    """

    def __init__(self, text: Text, documents: int, probe: RecallProbe, config: RunConfig, teacher: Teacher | None):
        self.text, self.documents, self.probe, self.config = text, documents, probe, config
        self.teacher = teacher
        self.seconds = 0.0  # of training, without probes
        self.recall: dict[str, Any] | None = None  # None if the run was resumed after its last step

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.seconds = time.perf_counter() - self.probe.began - self.probe.seconds
        self.recall = self.measured(pl_module.model)

    def measured(self, model: Transformer) -> dict[str, Any]:
        # Another seed than that of the tables: noise from that would be the initial table again.
        quantize(model, self.config.quantize, torch.Generator().manual_seed(self.config.seed + 2**31))
        recall = measure(model, self.text, self.documents)
        if self.teacher is not None:
            teacher = self.teacher.model.to(model.embedding.weight.device)  # with weight=0 it has not been there yet
            recall["teacher"] = agreement(model, teacher, self.text)
        return recall
