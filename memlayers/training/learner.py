"""The Lightning module: which parameters are trained, on which batches, with which optimizers."""

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

LOG_EVERY = 50  # steps; in short runs a twentieth of them


class Batches:
    """The training documents of every step. Each step has its own generator, so that a resumed run draws the same.

    Documents depend on the seeds of world and run alone: all arms of a seed see the same ones in the same order.
    """

    def __init__(self, text: Text, batch_size: int, steps: int, seeds: tuple[int, int]):
        self.text, self.batch_size, self.steps = text, batch_size, steps
        self.offset = seeds[0] * 0x9E3779B1 + seeds[1] * 0x85EBCA6B  # seeds of world and run, spread over 2**32
        self.first = 0  # first step; in a resumed run, that of the checkpoint

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Documents]:
        generator = torch.Generator()
        for step in range(self.first, self.steps):
            generator.manual_seed((self.offset + step) % 2**32)  # torch uses 32 bits of a seed
            yield part_of(self.text.sample(self.batch_size, generator), ranks.rank(), ranks.count())


def part_of(documents: Documents, rank: int, count: int) -> Documents:
    """Every `count`-th document, from number `rank` on. All ranks get equally many, filled up with padding.

    Rows that padding reads have a gradient of zero, which moves them in rules with momentum, as does the padding after
    short documents.
    """
    parts = (table[rank::count] for table in documents)
    missing = -(-len(documents.tokens) // count) - len(documents.tokens[rank::count])
    return (
        Documents(*(F.pad(table, (0, 0, 0, missing), value=PAD) for table in parts)) if missing else Documents(*parts)
    )


class FactLearner(lightning.LightningModule):
    """A transformer that learns documents; manual optimization, as value tables have their own optimizer."""

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
        self.register_buffer(
            "diverged_at", torch.tensor(-1), persistent=False
        )  # first step with a loss that is not finite; -1: none
        self.while_training = ExitStack()  # closed by `fit` in trainer.py
        roles = [(role == "memory_value", parameter) for _, role, parameter in parameters_with_roles(model)]
        self.value_parameters = [parameter for is_value, parameter in roles if is_value]
        self.other_parameters = [parameter for is_value, parameter in roles if not is_value]
        self.shards_at = Path()  # folder of the sharded tables of a checkpoint
        self.shards = any(isinstance(pool, ShardedPool) for pool in model.tables())
        self.kernels = ranks.for_shards(kernels) if self.shards else kernels
        if ranks.count() > 1:
            # DDP would densify sparse gradients, average shards, and wait for parameters that get no gradient.
            ignored = {id(parameter) for parameter in (*self.value_parameters, *unread(model, self.other_parameters))}
            names = [
                name for name, parameter in self.named_parameters(remove_duplicate=False) if id(parameter) in ignored
            ]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)

    def training_step(self, batch: Documents, batch_idx: int) -> None:
        with self.as_read():
            loss = answer_loss(self.model, Documents(*batch), self.loss, self.teacher)
            self.manual_backward(loss)
        is_first = ~loss.detach().isfinite() & (self.diverged_at < 0)
        self.diverged_at = torch.where(
            is_first, batch_idx, self.diverged_at
        )  # checked when the loss is logged: no wait for the GPU here
        optimizers = as_list(self.optimizers())
        if ranks.count() > 1:
            self.share_gradients_of_tables()
        clip_gradients(self.other_parameters, self.optim.clip)
        clip_gradients(self.value_parameters, self.optim.clip_values, self.shards)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in as_list(self.lr_schedulers()):
            schedule.step()
        if batch_idx % min(LOG_EVERY, max(1, self.steps // 20)) == 0 or batch_idx + 1 == self.steps:
            value = float(ranks.mean(loss.detach()))
            (first,) = ranks.all_reduce_max(int(self.diverged_at))
            if first >= 0:
                raise Diverged(f"the loss is not finite from step {first} on", noticed(self.model, first, value))
            self.log("loss", value, prog_bar=True)
            self.logged_loss = value

    def as_read(self) -> AbstractContextManager[None]:
        """Context in which parameters are rounded, if the model is trained with rounding; else without effect."""
        return nullcontext() if self.quantize is None else rounded(self.model, self.quantize)

    def share_gradients_of_tables(self) -> None:
        """Average the gradients of tables over processes; DistributedDataParallel does it for all others."""
        for values in self.value_parameters:
            if values.grad is not None:
                values.grad = values.grad / ranks.count() if self.shards else ranks.mean_gradient(values.grad)

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.model.to(self.device)
        if ranks.count() > 1 or (self.quantize is not None and self.quantize.tables != "float32"):
            return  # no fused update: gradients are to be averaged, or the table in backward is a rounded copy
        rules = as_list(self.optimizers(use_pl_optimizer=False))
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
    """Mean cross-entropy in nats over the tokens of objects (loss="answers") or over all but those of a context
    ("all"), mixed with a teacher's loss if there is one, plus auxiliary losses.
    """
    tokens, answers, context = documents
    target = tokens[:, 1:]
    where = answers[:, 1:] if loss == "answers" else (target != PAD) & ~context[:, 1:]
    out = model(tokens[:, :-1], where)
    if not where.any():  # a small batch may hold no answer, if all its sentences have the object first
        total = out.logits.sum() * 0
    elif teacher is None:
        total = F.cross_entropy(out.logits.float(), target[where])
    else:
        total = teacher.loss(out.logits.float(), documents, where)
    if ranks.count() > 1:  # weigh by tokens, so that DDP's mean over processes is the mean over all tokens
        scored = where.sum().float()
        total = total * (scored / ranks.mean(scored).clamp(min=1 / ranks.count()))
    return total if out.aux_loss is None else total + out.aux_loss


def unread(model: Transformer, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters on which no loss depends, such as the gain of a norm before a layer that uses tokens alone.

    Computed with the reference kernels: the model is still on the CPU, which Triton does not support, and
    implementations_used must not list this call.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    with evaluation(model), by_reference(model):
        out = model(torch.ones(1, 2, dtype=torch.long, device=model.embedding.weight.device))
    total = out.logits.sum() + (0 if out.aux_loss is None else out.aux_loss)
    gradients = torch.autograd.grad(total, learning, allow_unused=True)
    return [parameter for parameter, gradient in zip(learning, gradients, strict=True) if gradient is None]


def as_list(optimizers: Any) -> list[Any]:
    """Lightning returns a single optimizer bare, and several in a list."""
    return optimizers if isinstance(optimizers, list) else [optimizers]
