"""Junk beside the facts: people nobody will ask about, after Physics of Language Models 3.3 (arXiv 2404.05405)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from memlayers.facts.drawing import draw_facts, nth_free, spell_digits, to_digits


@dataclass(frozen=True)
class Junk:
    """People of whom the world holds no fact: a name and facts are drawn anew for each document, which is written like
    one about a subject. Names may repeat, with other facts.

    Letters: p parts of a name, r relations, n subjects, u unknown subjects.
    """

    share: float  # of the documents of training
    tag: bool  # whether a token in front marks documents about subjects, and questions
    pairs: int  # facts that a document tells and asks again; 0: it is one like those about subjects
    parts: tuple[Tensor, ...]  # (p,) tokens of the values of each part
    taken: Tensor  # (n + u,) ranks of names that are not free
    cardinalities: tuple[int, ...]  # (r,) objects of each relation

    @property
    def num_names(self) -> int:
        return math.prod(map(len, self.parts)) - len(self.taken)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Names (count, p) in tokens, uniform over those that are free, and facts (count, r), uniform over objects."""
        ranks = nth_free(torch.randint(self.num_names, (count,), generator=generator), self.taken)
        names = spell_digits(to_digits(ranks, [len(part) for part in self.parts]), self.parts)
        return names, draw_facts(count, self.cardinalities, generator)
