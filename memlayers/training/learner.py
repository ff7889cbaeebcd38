"""Lightning: wiring only. What is trained, on which batches, with which optimizers, and when it is asked."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from memlayers.config import OptimConfig, QuantizeConfig
from memlayers.documents import Documents
from memlayers.facts.world import PAD
from memlayers.kernels import REFERENCE, Kernels, by_reference
from memlayers.layers.sharded_pool import ShardedPool
from memlayers.model import Transformer, parameters_with_roles
from memlayers.optim import build_optimizers, build_schedules, clip_gradients, fused_updates
from memlayers.quantize import rounded
from memlayers.recall.ask import evaluation
from memlayers.text import Text
from memlayers.training import ranks, shards
from memlayers.training.divergence import Diverged, noticed
from memlayers.training.teacher import Teacher

LOG_EVERY = 50  # steps, or a twentieth of a short run: often enough to watch, seldom enough to cost nothing


class Batches:
    """The training documents of every step, each from a generator of its own, so that any step can be drawn anew.

    They follow from the world's seed and the run's: all arms of one seed see the same documents in the same order.
    """

    def __init__(self, text: Text, batch_size: int, steps: int, seeds: tuple[int, int]):
        self.text, self.batch_size, self.steps = text, batch_size, steps
        self.offset = seeds[0] * 0x9E3779B1 + seeds[1] * 0x85EBCA6B  # of world and run: far apart among 2**32
        self.first = 0  # step to begin with: that of the checkpoint in a resumed run

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Documents]:
        generator = torch.Generator()
        for step in range(self.first, self.steps):
            generator.manual_seed((self.offset + step) % 2**32)  # torch keeps no more than 32 bits
            yield part_of(self.text.sample(self.batch_size, generator), ranks.rank(), ranks.count())


def part_of(documents: Documents, rank: int, count: int) -> Documents:
    """Every `count`-th document from this rank's on: as many for each process, the last perhaps of padding alone.

    Rows that such padding reads have a gradient of zero: a rule with momentum moves them, as it does after the end of
    shorter documents.
    """
    parts = (one[rank::count] for one in documents)
    missing = -(-len(documents.tokens) // count) - len(documents.tokens[rank::count])
    return Documents(*(F.pad(one, (0, 0, 0, missing), value=PAD) for one in parts)) if missing else Documents(*parts)


class FactLearner(lightning.LightningModule):
    """A transformer that learns documents; manual optimization, as matrices and values have optimizers of their own."""

    diverged_at: Tensor

    def __init__(
        self,
        model: Transformer,
        optim: OptimConfig,
        loss: str,
        steps: int,
        kernels: Kernels = REFERENCE,
        quantize: QuantizeConfig | None = None,
        teacher: Teacher | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.model, self.optim, self.loss, self.steps = model, optim, loss, steps
        self.quantize = quantize if quantize is not None and quantize.when == "trained" else None
        self.teacher = teacher if teacher is not None and teacher.settings.weight > 0 else None
        self.logged_loss: float | None = None  # of the last step that was logged
        self.register_buffer("diverged_at", torch.tensor(-1), persistent=False)  # step of the first such loss
        self.while_training = ExitStack()  # closed by trainer.fit, however it ends
        roles = [(role == "memory_value", parameter) for _, role, parameter in parameters_with_roles(model)]
        self.value_parameters = [parameter for is_value, parameter in roles if is_value]
        self.other_parameters = [parameter for is_value, parameter in roles if not is_value]
        self.shards_at = Path()  # where a checkpoint has what is sharded
        self.shards = any(isinstance(pool, ShardedPool) for pool in model.tables())
        self.kernels = ranks.for_shards(kernels) if self.shards else kernels
        if ranks.count() > 1:
            # Gradients of tables are sparse, or of a shard; for one that never comes, others would wait.
            apart = {id(parameter) for parameter in (*self.value_parameters, *unread(model, self.other_parameters))}
            names = [name for name, one in self.named_parameters(remove_duplicate=False) if id(one) in apart]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)

    def training_step(self, batch: Documents, batch_idx: int) -> None:
        with self.as_read():
            loss = answer_loss(self.model, Documents(*batch), self.loss, self.teacher)
            self.manual_backward(loss)
        is_first = ~loss.detach().isfinite() & (self.diverged_at < 0)
        self.diverged_at = torch.where(is_first, batch_idx, self.diverged_at)  # looked at where the loss is logged
        optimizers = listed(self.optimizers())
        if ranks.count() > 1:
            self.share_gradients_of_tables()
        clip_gradients(self.other_parameters, self.optim.clip)
        clip_gradients(self.value_parameters, self.optim.clip_values, self.shards)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in listed(self.lr_schedulers()):
            schedule.step()
        if batch_idx % min(LOG_EVERY, max(1, self.steps // 20)) == 0 or batch_idx + 1 == self.steps:
            value = float(ranks.mean(loss.detach()))
            (first,) = ranks.most(int(self.diverged_at))
            if first >= 0:
                found = noticed(self.model, first, value)
                raise Diverged(f"the loss is not finite from step {first} on", found)
            self.log("loss", value, prog_bar=True)
            self.logged_loss = value

    def as_read(self) -> AbstractContextManager[None]:
        """Within, the model has the rounded parameters that it is trained to be read with, if it is."""
        return nullcontext() if self.quantize is None else rounded(self.model, self.quantize)

    def share_gradients_of_tables(self) -> None:
        """The mean over processes; all others' gradients are DistributedDataParallel's."""
        for values in self.value_parameters:
            if values.grad is not None:
                values.grad = values.grad / ranks.count() if self.shards else ranks.mean_gradient(values.grad)

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.model.to(self.device)
        if ranks.count() > 1 or (self.quantize is not None and self.quantize.tables != "float32"):
            return  # backward has one process's part of a gradient; or a rounded table, which is not the one to move
        rules = listed(self.optimizers(use_pl_optimizer=False))
        self.while_training.enter_context(fused_updates(self.model, rules, self.optim))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["logged_loss"] = self.logged_loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.logged_loss = checkpoint["logged_loss"]
        if self.shards:
            shards.put_back(checkpoint, self, self.value_parameters, self.shards_at)

    def configure_optimizers(self) -> Any:
        optimizers = build_optimizers(self.model, self.optim, self.kernels)
        return optimizers, build_schedules(optimizers, self.optim, self.steps)


def answer_loss(model: Transformer, documents: Documents, loss: str, teacher: Teacher | None = None) -> Tensor:
    """Mean cross-entropy in nats over the tokens of objects (`answers`) or over all but those of a context (`all`), in
    part with a teacher's predictions if there is one, plus auxiliary losses.
    """
    tokens, answers, context = documents
    target = tokens[:, 1:]
    where = answers[:, 1:] if loss == "answers" else (target != PAD) & ~context[:, 1:]
    out = model(tokens[:, :-1], where)
    if not where.any():  # a small batch of sentences with the object first has nothing to learn from
        total = out.logits.sum() * 0
    elif teacher is None:
        total = F.cross_entropy(out.logits.float(), target[where])
    else:
        total = teacher.loss(out.logits.float(), documents, where)
    if ranks.count() > 1:  # the mean over processes is the mean over the tokens of all
        scored = where.sum().float()
        total = total * (scored / ranks.mean(scored).clamp(min=1 / ranks.count()))
    return total if out.aux_loss is None else total + out.aux_loss


def unread(model: Transformer, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """Those on which no loss depends, as the gain of a norm before a layer that looks at tokens alone.

    By the reference, as the model is still on the CPU, where Triton cannot compute; nor does it count as having run.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    with evaluation(model), by_reference(model):
        out = model(torch.ones(1, 2, dtype=torch.long, device=model.embedding.weight.device))
    total = out.logits.sum() + (0 if out.aux_loss is None else out.aux_loss)
    gradients = torch.autograd.grad(total, learning, allow_unused=True)
    return [parameter for parameter, gradient in zip(learning, gradients, strict=True) if gradient is None]


def listed(one_or_more: Any) -> list[Any]:
    """Lightning hands out one optimizer bare and several in a list."""
    return one_or_more if isinstance(one_or_more, list) else [one_or_more]
