"""Training steps of whole models: forward, backward, clipping, optimizers; a run adds Lightning and schedules."""

from contextlib import ExitStack

import torch

from memlayers.config import RunConfig
from memlayers.documents import Documents
from memlayers.kernels import choose
from memlayers.model import build_model, parameters_with_roles
from memlayers.optim import build_optimizers, clip_gradients, fused_updates
from memlayers.studies.compose import jobs_of
from memlayers.training.learner import Batches, answer_loss
from memlayers.training.plan import plan

BATCHES = 16  # drawn before timing, then used in turn


def configured(*overrides: str) -> RunConfig:
    """The configuration of one run, from overrides of the command line."""
    (config,) = jobs_of(list(overrides), multirun=False)
    return config


class TrainingStep:
    """A callable that takes one training step of a run, matched as in the study."""

    def __init__(self, config: RunConfig, device: str = "cpu"):
        self.config, self.plan = config, plan(config)
        text, kernels = self.plan.text, choose(config.kernels)
        generator = torch.Generator().manual_seed(config.seed)
        self.model = build_model(self.plan.matched.model, len(text.vocabulary), generator, kernels).to(device)
        self.optimizers = build_optimizers(self.model, config.optim, kernels)
        roles = list(parameters_with_roles(self.model))
        self.others = [parameter for _, role, parameter in roles if role != "memory_value"]
        drawn = Batches(text, self.plan.batch_size, BATCHES, (config.world.seed, config.seed))
        self.batches = [Documents(*(table.to(device) for table in batch)) for batch in drawn]
        self.taken = 0
        self.while_training = ExitStack()
        self.while_training.enter_context(fused_updates(self.model, self.optimizers, config.optim))

    def __call__(self) -> None:
        self.taken += 1
        answer_loss(self.model, self.batches[self.taken % BATCHES], self.config.training.loss).backward()
        clip_gradients(self.others, self.config.optim.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
