"""Callbacks that ask for recall: on the way, and at the end."""

import time
from typing import Any

import lightning

from memlayers.recall.ask import ask, sample_facts
from memlayers.recall.measure import measure
from memlayers.text import Text
from memlayers.training.learner import Batches


class RecallProbe(lightning.Callback):
    """Asks for recall at even distances, without touching any generator of the training; keeps the curve."""

    def __init__(self, text: Text, batches: Batches, probes: int, max_facts: int):
        self.text, self.batches = text, batches
        self.facts = sample_facts(text.world, max_facts)
        self.at = {max(1, round(batches.steps * (index + 1) / probes)) for index in range(probes)}
        self.exposures = text.mean_exposures * batches.batch_size
        self.curve: list[dict[str, float]] = []
        self.seconds = 0.0  # of asking; not part of training
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
        answers = ask(pl_module.model, self.text, self.facts, "training")
        held_out = ask(pl_module.model, self.text, self.facts, "held_out").exact
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
        )
        pl_module.log("recall", self.curve[-1]["recall"], prog_bar=True)
        self.seconds += now - started

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "probing": self.seconds, "elapsed": time.perf_counter() - self.began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.curve, self.seconds, self.before = state_dict["curve"], state_dict["probing"], state_dict["elapsed"]


class FinalMeasurement(lightning.Callback):
    """All read-outs at the end of training, on its device: Lightning moves the model to the CPU afterwards."""

    def __init__(self, text: Text, documents: int, probe: RecallProbe):
        self.text, self.documents, self.probe = text, documents, probe
        self.seconds = 0.0  # of training, without probes
        self.recall: dict[str, Any] | None = None  # None where nothing was left to train: resumed at its last step

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.seconds = time.perf_counter() - self.probe.began - self.probe.seconds
        self.recall = measure(pl_module.model, self.text, self.documents)
