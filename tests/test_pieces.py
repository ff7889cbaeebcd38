"""Text in pieces, put together again, is the text in words."""

from dataclasses import replace

import pytest
from reader import decoded
from stubs import seeded
from tokenizers import decoders

from memlayers.config import AtlasConfig, BiographiesConfig
from memlayers.config.text import ProseConfig
from memlayers.facts.pieces import made_up
from memlayers.facts.world import END, SPECIAL_TOKENS
from memlayers.text import Text, text_of

PIECES = 600
WORLDS = {
    "biographies": BiographiesConfig(name="b", num_people=60, name_parts=[6] * 3, cardinalities=[8] * 3),
    "airports": AtlasConfig(name="a", source="airports", spelling="letters", num_subjects=60),
    "readings": AtlasConfig(name="r", source="readings", num_subjects=60),
}


def text_in(config, pieces: int | None, **prose) -> Text:
    prose = ProseConfig(pieces=pieces, **prose)
    return text_of(replace(config, text="prose", document="subject", prose=prose))


def joined(words: list[str]) -> str:
    return str(decoders.ByteLevel().decode([word for word in words if word not in SPECIAL_TOKENS]))


def written(text: Text, words: list[str]) -> str:
    """Words in their place, as pieces spell them: without the kind of a token, and with names that are made up."""
    ids = {word: index for index, word in enumerate(text.world.vocabulary)}
    kinds = (*text.world.relations, "hi", "lo")
    found = []
    for word in words:
        kind, colon, rest = word.partition(":")
        is_numbered = text.world.name == "b" and word in ids and word not in SPECIAL_TOKENS
        found.append(made_up(ids[word]) if is_numbered else rest if colon and kind in kinds else word)
    return "".join(f" {word}" for word in found if word not in SPECIAL_TOKENS)


@pytest.mark.parametrize("pronoun", [False, True])
@pytest.mark.parametrize("kind", WORLDS)
def test_documents_put_together_are_those_of_the_same_world_in_words(kind, pronoun):
    whole, cut = (text_in(WORLDS[kind], pieces, pronoun=pronoun, questions=0.5) for pieces in (None, PIECES))
    rows = zip(decoded(whole, whole.sample(80, seeded(2))), decoded(cut, cut.sample(80, seeded(2))), strict=True)
    for (words, marks), (pieces, answers) in rows:
        assert joined(list(pieces)) == written(whole, list(words))
        said = [piece for piece, answer in zip(pieces, answers, strict=True) if answer]
        assert joined(said) == written(whole, [word for word, mark in zip(words, marks, strict=True) if mark])
    assert cut.world.facts.equal(whole.world.facts)
    assert cut.vocabulary == cut.world.vocabulary  # no word has a token of its own beside the pieces
    assert 256 < len(cut.vocabulary) <= PIECES + len(SPECIAL_TOKENS)


@pytest.mark.parametrize("kind", WORLDS)
def test_objects_of_a_relation_are_different_and_none_begins_another(kind):
    world = text_in(WORLDS[kind], PIECES).world
    for table in world.objects:
        rows = [[token for token in row if token] for row in table.tolist()]
        assert len(set(map(tuple, rows))) == len(rows)
        if len({len(row) for row in rows}) > 1:
            assert all(row[-1] == END for row in rows)


def test_airports_that_are_spelt_in_names_are_written_as_names():
    config = replace(WORLDS["airports"], spelling="bpe")
    whole, cut = text_in(config, None), text_in(config, PIECES)
    for row, pieces in zip(whole.world.subjects.tolist(), cut.world.subjects.tolist(), strict=True):
        name = joined([whole.vocabulary[token].removeprefix("bpe:") for token in row])
        assert joined([cut.vocabulary[token] for token in pieces]) == name


def test_more_pieces_are_longer_ones():
    lengths = [text_in(WORLDS["biographies"], size).sample(50, seeded()).tokens.shape[1] for size in (300, 330, 600)]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 3


def test_words_that_are_made_up_are_all_different():
    words = [made_up(number) for number in range(0, 343_000, 7)]
    assert len(set(words)) == len(words) and {len(word) for word in words} == {6}
    assert made_up(0) == "bababa"


def test_too_few_pieces_are_refused():
    with pytest.raises(ValueError, match=r"world\.prose\.pieces=100"):
        replace(WORLDS["readings"], text="prose", prose=ProseConfig(pieces=100)).validate()
