"""What a configuration means for a run: text, matched model, batch size and number of steps."""

import dataclasses
from typing import Any

import torch

from memlayers.config import RunConfig
from memlayers.config.digest import settings
from memlayers.cost import Matched, solve
from memlayers.layers.feedforward import Workload
from memlayers.text import Text, text_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is known of a run before the model is allocated."""

    text: Text
    work: Workload
    matched: Matched
    batch_size: int  # documents in a step
    steps: int
    exposures: float  # mean exposures of a fact in the whole run

    @property
    def tokens(self) -> float:
        """Input positions of the whole run."""
        return self.steps * self.batch_size * self.work.sequence


def plan(config: RunConfig) -> Plan:
    """Build the text, match the model and count the steps. Raises ValueError for settings that cannot be met."""
    config.validate()
    text = text_of(config.world)
    sample = text.sample(4096, torch.Generator().manual_seed(0))
    positions = (sample.tokens[:, 1:] != 0).sum().item() / len(sample.tokens)
    learnt = sample.answers if config.training.loss == "answers" else (sample.tokens != 0) & ~sample.context
    scored = learnt[:, 1:].sum().item() / len(sample.tokens)
    batch_size = max(1, round(config.training.batch_tokens / positions))
    work = Workload(positions, scored, round(positions * batch_size))
    rule = config.optim.values
    sparse = rule is None or rule.sparse
    matched = solve(config.model, config.match, len(text.vocabulary), work, sparse, text.questions())
    matched.model.validate()
    exposures_a_step = text.mean_exposures * batch_size
    steps = round((config.training.steps or config.training.exposures / exposures_a_step) * matched.steps)
    return Plan(text, work, matched, batch_size, max(1, steps), max(1, steps) * exposures_a_step)


def described(config: RunConfig, chosen: Plan) -> dict[str, Any]:
    """The record's blocks that are known before training: facts, model, match, cost, and the lengths of training."""
    world, matched = chosen.text.world, chosen.matched
    return {
        "facts": {
            "relations": [dataclasses.asdict(relation) for relation in world.statistics()],
            "joint_entropy": world.joint_entropy(),
            "corpora": {corpus.name: corpus.digest for corpus in world.corpora},
            "notes": list(world.notes),
        },
        "model": settings(matched.model) | {"num_tokens": len(chosen.text.vocabulary)},
        "match": {"by": config.match.by, "target": matched.target, "reached": matched.reached},
        "cost": dataclasses.asdict(matched.cost)
        | {"flops_per_token": matched.cost.flops, "training_flops": matched.cost.flops * chosen.tokens},
        "training": {
            "steps": chosen.steps,
            "batch_size": chosen.batch_size,
            "tokens": chosen.tokens,
            "exposures": chosen.exposures,
        },
    }
