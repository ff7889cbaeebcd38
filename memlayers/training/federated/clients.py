"""Clients of federated learning: which facts each holds, and its training."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from memlayers.config import RunConfig
from memlayers.facts.world import PAD
from memlayers.kernels import Kernels
from memlayers.layers.feedforward import FFNOutput
from memlayers.layers.pool import readers
from memlayers.model import Transformer, parameters_with_roles
from memlayers.optim import build_optimizers, build_schedules, clip_gradients, fused_updates
from memlayers.text import Text
from memlayers.training.divergence import Diverged, noticed
from memlayers.training.learner import Batches, answer_loss

SHARED = -1  # owner of a subject that all clients hold


def owners(num_subjects: int, clients: int, shared: float) -> Tensor:
    """The owner (n,) of each subject: the first ones are SHARED, the others are assigned to clients in turn.

    Raises ValueError if no subject is shared, or a client gets none.
    """
    common = round(shared * num_subjects)
    if not 1 <= common <= num_subjects - clients:
        raise ValueError(
            f"federated.shared={shared} is {common} of {num_subjects} subjects; accepted: one or more, with one or "
            f"more left for each of {clients} clients"
        )
    place = torch.arange(num_subjects) - common
    return torch.where(place < 0, SHARED, place % clients)


class Client:
    """A client: its model, documents about its facts, and optimizers, which keep their state over rounds and are not
    sent.

    Fresh optimizers would start every round with Adagrad's largest steps. `weights` (n,) multiply the frequencies of
    subjects, `size` is the documents of a step, `stream` is the seed that differs between clients.
    """

    def __init__(
        self,
        model: Transformer,
        text: Text,
        config: RunConfig,
        weights: Tensor,
        size: int,
        steps: int,
        stream: int,
        kernels: Kernels,
    ):
        own = config.world
        world = dataclasses.replace(text.world, weights=text.world.weights * weights[:, None])
        told = Text(world, own.text, own.document, own.sentences, own.prose, own.corpus, own.seed, own.context)
        self.model, self.config, self.size = model, config, size
        self.batches = iter(Batches(told, size, steps, (own.seed + stream, config.seed)))
        self.optimizers = build_optimizers(model, config.optim, kernels)
        self.schedules = build_schedules(self.optimizers, config.optim, steps)
        self.reads: list[Tensor] = []  # reads of each slot (n,) of each table in the last round

    def train(self, steps: int) -> None:
        """Take the steps of a round, each as in training.learner.

        Raises Diverged for a loss or a model that is not finite.
        """
        optim, roles = self.config.optim, list(parameters_with_roles(self.model))
        tables = [parameter for _, role, parameter in roles if role == "memory_value"]
        others = [parameter for _, role, parameter in roles if role != "memory_value"]
        loss = torch.zeros(())
        with fused_updates(self.model, self.optimizers, optim), counted(self.model) as self.reads:
            for documents in islice(self.batches, steps):
                loss = answer_loss(self.model, documents, self.config.training.loss)
                loss.backward()
                clip_gradients(others, optim.clip)
                clip_gradients(tables, optim.clip_values)
                for optimizer in self.optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
                for schedule in self.schedules:
                    schedule.step()
        if not loss.isfinite() or not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            raise Diverged("a client's model is not finite", noticed(self.model, steps, loss.item()))


@contextmanager
def counted(model: Transformer) -> Iterator[list[Tensor]]:
    """Context that counts the reads of each slot (n,) of each table, without padding, whatever their weights."""
    pools = model.tables()
    counts = [torch.zeros(len(pool.values), dtype=torch.long) for pool in pools]

    def add(layer: nn.Module, given: tuple[Tensor, Tensor], out: FFNOutput) -> None:
        assert out.reads is not None
        count = counts[pools.index(layer.pool)]  # type: ignore[arg-type]
        count += out.reads.slots[given[1] != PAD].flatten().bincount(minlength=len(count))

    with ExitStack() as stack:
        for layer in readers(model):
            stack.callback(layer.register_forward_hook(add).remove)
        yield counts
