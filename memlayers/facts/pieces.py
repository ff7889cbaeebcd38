"""A world in subword tokens (pieces): byte-pair encoding trained on all of its text.

time_zone:Europe/Paris      ->  ĠEurope  /  Paris  <end>
S  Y  D                     ->  ĠS  ĠY  ĠD
first_36 (in biographies)   ->  Ġko  matu                   each part of a name and each object is a made-up word
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from typing import Any

from torch import Tensor

from memlayers.config.text import CorpusConfig
from memlayers.facts.corpora import in_tokens
from memlayers.facts.spelling import trained_tokenizer
from memlayers.facts.world import SPECIAL_TOKENS, Vocabulary, World, pad, spell_objects
from memlayers.running_text import read_source

MOST = 20_000  # most sentences that the encoding is trained on
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Pieces:
    """Callable that splits a text into its pieces."""

    tokenizer: Any

    def __call__(self, text: str) -> list[str]:
        return list(self.tokenizer.encode(text).tokens)


def in_pieces(world: World, size: int, corpus: CorpusConfig | None = None) -> World:
    """The world in a vocabulary of `size` pieces besides the special tokens, with running text from `corpus`."""
    spelt_rows = [*world.subjects.tolist(), *world.unknown.tolist()]
    given = bool(world.written_objects)  # texts of the user's, in which a colon separates nothing
    names = world.names() if given else tuple(map(world.written, spelt_rows))
    objects = [world.object_names(relation) for relation in range(len(world.relations))]
    sources, length = (corpus.sources, corpus.length) if corpus else ([], 0)
    documents = {source: read_source(source) for source in sources}
    text = chain(sentences(world, names, objects), *(one.train for one in documents.values()))
    tokenizer = trained_tokenizer(text, size)
    vocabulary = Vocabulary()
    for piece, _ in sorted(tokenizer.get_vocab().items(), key=itemgetter(1)):
        vocabulary[piece]
    first = len(SPECIAL_TOKENS)  # offset of the tokenizer's ids

    def spelt(text: str) -> list[int]:
        return [first + token for token in tokenizer.encode(text).ids]

    def many(texts: Sequence[str]) -> list[list[int]]:
        return [[first + token for token in encoding.ids] for encoding in tokenizer.encode_batch(texts)]

    subjects: Tensor = pad([spelt(name) for name in names])
    tables = [spell_objects([spelt(text) for text in table]) for table in objects]
    for rows in (subjects, *tables):
        if len(set(map(tuple, rows.tolist()))) < len(rows):
            what = "subjects" if rows is subjects else "objects"
            raise ValueError(
                f"world.prose.pieces={size}: two {what} of world {world.name} are spelt alike; accepted: null"
            )
    return replace(
        world,
        written_subjects=world.names(),
        written_objects=tuple(objects),
        vocabulary=vocabulary.tokens(),
        subjects=subjects[: len(world.subjects)],
        unknown=subjects[len(world.subjects) :],
        objects=tuple(tables),
        encode=Pieces(tokenizer),
        corpora=tuple(in_tokens(source, own, many, length) for source, own in documents.items()),
    )


def sentences(world: World, names: Sequence[str], objects: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield sentences about random facts, each in a random template that is not held out."""
    generator = random.Random(0)
    facts = (world.facts != -1).nonzero().tolist()
    for subject, relation in generator.sample(facts, min(MOST, len(facts))):
        entry = world.templates[relation]
        sentence = generator.choice((*entry.train, *entry.questions))
        yield (
            sentence.replace("{subject}", names[subject]).replace(
                "{object}", objects[relation][int(world.facts[subject, relation])]
            )
            + " ."
        )


def made_up(number: int) -> str:
    """A word of three syllables for each number below 343,000, all different: 0 is "bababa"."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    total = len(syllables) ** 3
    assert number < total
    number = number * 123_457 % total  # coprime to total: neighbouring numbers get different syllables
    base = len(syllables)
    return syllables[number // base**2] + syllables[number // base % base] + syllables[number % base]
