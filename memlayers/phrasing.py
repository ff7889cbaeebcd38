"""In which sentence a fact is told: the templates of all relations as tables, and which of them a subject gets.

statement   the birthplace of {subject} is {object} .        question   where was {subject} born ? {object} .
"""

from itertools import chain

import torch
from torch import Tensor

from memlayers.config.text import ProseConfig
from memlayers.facts.world import KINDS, PAD, World, pad

SUBJECT, OBJECT = -1, -2  # in a layout, beside the ids of literal words


class Layouts:
    """Templates of each relation as one table of codes: (r, templates, parts)."""

    def __init__(self, templates: list[list[list[int]]]):
        most = max([1, *(len(rows) for rows in templates)])
        longest = max([1, *(len(one) for rows in templates for one in rows)])
        self.codes = torch.full((len(templates), most, longest), PAD)
        for relation, rows in enumerate(templates):
            if rows:
                table = pad(rows)
                self.codes[relation, : len(rows), : table.shape[1]] = table
        self.count = torch.tensor([len(rows) for rows in templates])

    def choose(self, relation: Tensor, pick: Tensor) -> Tensor:
        """A template for each relation, by uniform numbers `pick` in [0, 1)."""
        return (pick * self.count[relation]).long()


PRONOUN = "this one"  # the subject of a document's later sentences, if they do not name it
OF_TRAINING = ("told", "statements")  # layouts that training draws from and nobody asks in


def pronoun_of(world: World, prose: ProseConfig, ids: dict[str, int]) -> list[int]:
    """Tokens of the pronoun, added to `ids`; none where every sentence names its subject."""
    words = (world.encode(PRONOUN) if world.encode else PRONOUN.split()) if prose.pronoun else []
    return [ids.setdefault(word, len(ids)) for word in words]


def layouts_of(world: World, style: str, prose: ProseConfig, ids: dict[str, int]) -> dict[str, Layouts]:
    """By what they are for, the templates of a world; words that it lacks are added to `ids`.

    told: in training, statements and then questions; statements: those of them; training: statements that can be asked,
    as their subject comes first; held_out, questions and held_out_questions: as in facts.world.Templates.
    """
    codes = {"{subject}": SUBJECT, "{object}": OBJECT}

    def word(text: str) -> int:
        return ids.setdefault(text, len(ids))

    def layout(template: str) -> list[int]:
        parts = [
            [codes[part]]
            if part in codes
            else [word(piece) for piece in (world.encode(part) if world.encode else [part])]
            for part in [*template.split(), "."]
        ]
        return list(chain.from_iterable(parts))

    rows: dict[str, list[list[list[int]]]]
    if style == "terse":
        rows = {kind: [[] for _ in world.relations] for kind in KINDS}
        rows["train"] = [[[SUBJECT, word(f"[{name}]"), OBJECT]] for name in world.relations]
        rows |= dict.fromkeys(world.views, rows["train"])
    else:
        if not world.templates:
            raise ValueError(f"world.text=prose: world {world.name} has no templates; accepted: terse")
        rows = {kind: [[layout(one) for one in getattr(entry, kind)] for entry in world.templates] for kind in KINDS}
        rows["train"] = [own[: prose.num_templates] for own in rows["train"]]
    asked = [[one for one in own if one.index(SUBJECT) < one.index(OBJECT)] for own in rows["train"]]
    if not any(asked):
        why = "all training templates have the object first"
        raise ValueError(f"world.text={style}: {why}; accepted: a template with the subject first, to ask with")
    if prose.questions and not any(rows["questions"]):
        raise ValueError(f"world.prose.questions={prose.questions}: world {world.name} has no questions; accepted: 0")
    told = [[*own, *questions] for own, questions in zip(rows["train"], rows["questions"], strict=True)]
    found = {"told": told, "statements": rows["train"], "training": asked}
    del rows["train"]
    return {kind: Layouts(own) for kind, own in (rows | found).items()}


class Telling:
    """Which template training tells a fact in: a fresh one at every exposure, unless the settings say otherwise."""

    def __init__(self, layouts: dict[str, Layouts], num_subjects: int, prose: ProseConfig, seed: int):
        self.statements, self.questions = layouts["statements"], layouts["questions"]
        self.has_pronoun = prose.pronoun

        def share(part: float, generator: torch.Generator) -> Tensor:
            return torch.randperm(num_subjects, generator=generator) < round(part * num_subjects)

        generator, other = (torch.Generator().manual_seed(one) for one in (seed, seed + 2**31))
        torch.randperm(num_subjects, generator=generator)  # a world of all names has its subjects in this order
        self.is_celebrity, self.is_asked = share(prose.celebrities, other), share(prose.questions, generator)
        self.only = torch.rand(num_subjects, len(self.statements.count), generator=generator)

    def state(self, subject: Tensor, relation: Tensor, generator: torch.Generator) -> Tensor:
        """Templates (b, r) among the statements, for facts of `subject` (b,)."""
        pick = torch.rand(relation.shape, generator=generator)
        if not self.is_celebrity.all():
            pick = torch.where(self.is_celebrity[subject][:, None], pick, self.only[subject[:, None], relation])
        return self.statements.choose(relation, pick)

    def choose(self, subject: Tensor, relation: Tensor, generator: torch.Generator) -> Tensor:
        """Templates (b, r) among those told, for facts of `subject` (b,)."""
        chosen = self.state(subject, relation, generator)
        if not self.is_asked.any():
            return chosen
        coin, pick = torch.rand(2, *relation.shape, generator=generator)
        question = self.statements.count[relation] + self.questions.choose(relation, pick)
        asked = self.is_asked[subject][:, None] & (coin < 0.5) & (self.questions.count[relation] > 0)
        return torch.where(asked, question, chosen)
