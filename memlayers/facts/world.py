"""A world: facts as tables of integers, with names spelt in tokens that subjects share.

    subject 17    "SYD"  ->  tokens  S Y D
    relation 1    time zone
    facts[17, 1]  =  42  ->  objects[1][42]  =  tokens  Australia/Sydney

Subjects share their tokens, so that no fact can be stored in an embedding row. Where there are few subjects, some may
have a token that no other has: `notes` say how many, of airports and of the user's facts.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from memlayers.facts.corpora import Corpus
from memlayers.facts.junk import Junk

PAD = 0  # padding of token tables, on the right; never predicted, never counted
SPECIAL_TOKENS = ("<pad>", "<end>")
SPELLINGS = ("bpe", "hi", "lo", "byte")  # of subjects, as in facts/spelling.py
END = 1  # ends the objects of a relation if they differ in length, so that none is a prefix of another


@dataclass(frozen=True)
class RelationStatistics:
    """Statistics of a relation: entropy in bits, majority share in [0, 1], both weighted by frequency."""

    name: str
    num_facts: int
    num_objects: int
    entropy: float
    majority: float


@dataclass(frozen=True)
class Templates:
    """Sentences of one relation, such as "{subject} was born in {object}"; words are separated by spaces.

    Held-out ones are used for questions only, never in training, so that their object must come after the subject.
    Questions are sentences that end in their answer.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    held_out_questions: tuple[str, ...] = ()


KINDS = tuple(Templates.__dataclass_fields__)


@dataclass(frozen=True)
class World:
    """Facts as tables of integers; token 0 is padding, on the right.

    Letters: n subjects, u unknown subjects, r relations, m objects of a relation, s and o tokens of a spelling.
    """

    name: str
    vocabulary: tuple[str, ...]  # token id -> text; begins with SPECIAL_TOKENS
    subjects: Tensor  # (n, s) spelling of each subject, all rows distinct
    relations: tuple[str, ...]  # names
    objects: tuple[Tensor, ...]  # for each relation (m, o): spelling of each object, END included where lengths differ
    facts: Tensor  # (n, r) row in the relation's objects, or -1 where nothing is known
    weights: Tensor  # (n, r) relative frequency in training, 0 where nothing is told
    unknown: Tensor  # (u, s) subjects in the same spelling about which the world holds no fact
    templates: tuple[Templates, ...] = ()  # one for each relation; empty in a world that has no prose
    encode: Callable[[str], list[str]] | None = None  # text -> tokens; None where each word is one
    corpora: tuple[Corpus, ...] = ()  # running text in the same tokens
    views: dict[str, Tensor] = field(default_factory=dict)  # phrasing -> (n + u, v, s): spellings to draw from
    written_subjects: tuple[str, ...] = ()  # names for people, unknown ones last; empty: made from tokens
    written_objects: tuple[tuple[str, ...], ...] = ()  # the same of each relation's objects
    junk: Junk | None = None  # what is told beside the facts
    hops: dict[int, tuple[int, int]] = field(default_factory=dict)  # relation -> the two that it is composed of
    notes: tuple[str, ...] = ()  # one line for each thing the loader dropped, merged or resolved

    def __post_init__(self) -> None:
        num_subjects, num_relations = self.facts.shape
        assert self.weights.shape == self.facts.shape and len(self.subjects) == num_subjects
        assert len(self.relations) == len(self.objects) == num_relations
        for name, column in zip(self.relations, self.facts.T, strict=True):
            if column[column >= 0].unique().numel() < 2:
                told = f" ({'; '.join(self.notes)})" if self.notes else ""
                raise ValueError(
                    f"world {self.name}: relation {name!r} has fewer than two objects; nothing to recall{told}"
                )

    @property
    def is_told(self) -> Tensor:
        """(n, r) bool: facts that training tells. Others are to be composed of them."""
        return (self.facts >= 0) & (self.weights > 0)

    @property
    def num_facts(self) -> int:
        return int(self.is_told.sum())

    def names(self) -> tuple[str, ...]:
        """The names of subjects, then of unknown ones."""
        rows = chain(self.subjects.tolist(), self.unknown.tolist())
        return self.written_subjects or tuple(self.written(row) for row in rows)

    def object_names(self, relation: int) -> tuple[str, ...]:
        """The names of a relation's objects."""
        if self.written_objects:
            return self.written_objects[relation]
        return tuple(self.written(row) for row in self.objects[relation].tolist())

    def written(self, row: list[int]) -> str:
        """The text of a row of tokens, without prefixes of relations and spellings: Europe/Rome for
        time_zone:Europe/Rome.
        """
        words = [self.vocabulary[token] for token in row if token >= len(SPECIAL_TOKENS)]
        parts = [word.partition(":") for word in words]
        if words and all(kind == "bpe" for kind, _, _ in parts):
            from tokenizers import decoders

            return str(decoders.ByteLevel().decode([text for _, _, text in parts])).strip()
        named = {*self.relations, *SPELLINGS}
        return " ".join(text if kind in named else word for word, (kind, _, text) in zip(words, parts, strict=True))

    def prior(self, relation: int) -> Tensor:
        """Probability of each object of a relation under the training frequencies: (m,), float64."""
        known = self.facts[:, relation] >= 0
        mass = torch.zeros(len(self.objects[relation]), dtype=torch.float64)
        mass.index_add_(0, self.facts[known, relation].long(), self.weights[known, relation].double())
        return mass / mass.sum()

    def statistics(self) -> list[RelationStatistics]:
        """The statistics of each relation."""
        rows = []
        for index, name in enumerate(self.relations):
            prior = self.prior(index)
            num_facts = int(self.is_told[:, index].sum())
            rows.append(RelationStatistics(name, num_facts, int((prior > 0).sum()), entropy(prior), float(prior.max())))
        return rows

    def joint_entropy(self) -> float:
        """The joint entropy in bits of all objects of a subject: a plug-in estimate, at most log2 of the number of
        subjects.

        The sum of the relations' entropies is larger if relations are dependent (a time zone determines the country).
        """
        _, counts = torch.unique(self.facts, dim=0, return_counts=True)
        return entropy(counts.double() / counts.sum())


def known_facts(world: World) -> Tensor:
    """All facts that training tells, as (subject, relation): (f, 2)."""
    return world.is_told.nonzero()


def entropy(probabilities: Tensor) -> float:
    """Shannon entropy in bits; zero probabilities contribute nothing."""
    positive = probabilities[probabilities > 0].double()
    return float(-(positive * positive.log2()).sum())


class Vocabulary:
    """Assigns token ids in order of first use."""

    def __init__(self) -> None:
        self._ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}

    def __getitem__(self, token: str) -> int:
        return self._ids.setdefault(token, len(self._ids))

    def tokens(self) -> tuple[str, ...]:
        return tuple(self._ids)


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of token ids as one table, padded on the right: (len(rows), longest)."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    table = torch.full((len(rows), int(lengths.max()) if len(rows) else 0), PAD)
    filled = torch.arange(table.shape[1]) < lengths[:, None]
    table[filled] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
    return table


def num_unshared(spellings: Sequence[Sequence[int]]) -> int:
    """How many spellings have a token that no other has: an embedding row of their own, where a fact can hide."""
    times = Counter(chain.from_iterable(map(set, spellings)))
    return sum(any(times[token] == 1 for token in spelling) for spelling in spellings)


def spell_objects(spellings: Sequence[Sequence[int]]) -> Tensor:
    """Token table of a relation's objects; if lengths differ, END is appended to each, so that none is a prefix of
    another.
    """
    same_length = len({len(spelling) for spelling in spellings}) == 1
    return pad([list(spelling) if same_length else [*spelling, END] for spelling in spellings])
