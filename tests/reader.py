"""Documents read back into words and facts, by trying all sentences that the world can tell at every place."""

from collections import defaultdict
from functools import cache

from stubs import name_of, sentences, small_world

from memlayers.documents import Documents
from memlayers.facts.world import PAD
from memlayers.text import Text

Words = tuple[str, ...]


@cache
def small_text(kind: str, style: str) -> Text:
    return Text(small_world(kind), style, "subject")


def decoded(text: Text, documents: Documents) -> list[tuple[Words, tuple[bool, ...]]]:
    """Words and answer marks of each row; padding is on the right only, and is never an answer."""
    rows = []
    for tokens, answers in zip(documents.tokens.tolist(), documents.answers.tolist(), strict=True):
        length = sum(token != PAD for token in tokens)
        assert all(tokens[:length]) and not any(tokens[length:]) and not any(answers[length:])
        rows.append((tuple(text.vocabulary[token] for token in tokens[:length]), tuple(answers[:length])))
    return rows


class Reader:
    """Reads documents back, by trying all sentences that the world can tell at every place."""

    def __init__(self, kind: str, style: str):
        world = small_world(kind)
        self.terse = style == "terse"
        self.known: dict[Words, set[tuple[int, int, str]]] = defaultdict(set)
        self.subjects = {tuple(name_of(world, subject)): subject for subject in range(len(world.subjects))}
        for phrasing in ("train", "held_out"):
            for subject, relation, words, _ in sentences(world, style, phrasing):
                rest = words[len(name_of(world, subject)) :] if self.terse else words
                self.known[tuple(rest)].add((subject, relation, phrasing))
        self.lengths = sorted({len(words) for words in self.known})

    def readings(self, words: Words, subject: int | None = None) -> list[list[tuple[int, int, str]]]:
        """All ways to read a row as sentences: (subject, relation, phrasing) of each."""
        if self.terse and subject is None:
            names = [(name, one) for name, one in self.subjects.items() if words[: len(name)] == name]
            return [reading for name, one in names for reading in self.readings(words[len(name) :], one)]
        if not words:
            return [[]]
        return [
            [one, *rest]
            for length in self.lengths
            for one in self.known.get(words[:length], ()) if len(words) >= length
            if subject is None or one[0] == subject
            for rest in self.readings(words[length:], subject)
        ]  # fmt: skip

    def read(self, words: Words) -> list[tuple[int, int, str]]:
        found = self.readings(words)
        assert len(found) == 1, (words, found)
        return found[0]


@cache
def reader(kind: str, style: str) -> Reader:
    return Reader(kind, style)
