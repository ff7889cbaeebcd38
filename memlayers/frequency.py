"""How often training tells each fact: what a document is drawn by."""

from typing import NamedTuple

import torch
from torch import Tensor

from memlayers.facts.world import World, known_facts


class Frequency(NamedTuple):
    """Letters: n subjects, r relations, f facts that are told, d documents to draw from (facts, or subjects)."""

    facts: Tensor  # (f, 2) subject, relation
    cumulative: Tensor  # (d,) cumulative probability of the documents
    include: Tensor  # (n, r) probability of a fact in a document of its subject
    told: Tensor  # (n, r) expected exposures of each fact in one document


def frequency_of(world: World, document: str, sentences: int | None) -> Frequency:
    """The frequency of facts in documents of a `fact` or a `subject`, all or so many `sentences` of it. Raises
    ValueError for sentences about facts of different weight.
    """
    weight, facts = world.weights.double(), known_facts(world)
    top = weight.amax(dim=1)
    include = weight / top.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    mass = top if document == "subject" else weight[facts[:, 0], facts[:, 1]]
    told = weight / mass.sum()
    if sentences is not None:
        if not ((include == 0) | (include == 1)).all():
            raise ValueError(f"world.sentences={sentences}: facts of a subject differ in weight; accepted: null")
        told *= (sentences / include.sum(dim=1, keepdim=True)).clamp(max=1)
    return Frequency(facts, (mass / mass.sum()).cumsum(0), include, told)
