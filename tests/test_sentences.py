"""Held-out sentences are new in their order and not in their words; a sentence says which relation it tells."""

import itertools

import pytest

from memlayers.facts.sentences import MOST, WORDINGS, expanded, templates
from memlayers.facts.world import KINDS

WORLDS = {
    "biographies": ("birth_date", "birth_city", "university", "major", "employer", "hobby"),
    "more attributes": (*WORDINGS, "attribute_7", "attribute_8"),
    "airports": ("country", "time_zone", "subdivision", "latitude", "longitude", "elevation", "icao"),
    "readings": ("reading",),
}


@pytest.fixture(params=WORLDS)
def told(request) -> dict:
    return {relation: templates(relation, turn) for turn, relation in enumerate(WORLDS[request.param])}


def nouns_of(relation: str) -> list[str]:
    return WORDINGS[relation].nouns.strip("()").split("|") if relation in WORDINGS else [relation.replace("_", " ")]


def triples(relation: str, sentences: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Every three words in a row, where a noun of the relation is one word, whichever it is."""
    found = set()
    for sentence in sentences:
        for noun in nouns_of(relation):
            sentence = sentence.replace(noun, "NOUN")
        words = sentence.split()
        found |= {tuple(words[at : at + 3]) for at in range(len(words) - 2)}
    return found


def test_there_are_as_many_as_promised_and_all_are_different(told):
    for one in told.values():
        assert len(one.train) == MOST and len(one.held_out) >= 8 and len(one.questions) >= 2
        assert len(one.held_out_questions) >= 2
        everything = list(itertools.chain.from_iterable(getattr(one, kind) for kind in KINDS))
        assert len(set(everything)) == len(everything)


def test_subject_and_relation_come_before_the_object(told):
    """No two relations are asked for in the same words, so what stands before the object decides which it is."""
    asked: dict[str, str] = {}
    for relation, one in told.items():
        for sentence in itertools.chain.from_iterable(getattr(one, kind) for kind in KINDS):
            before, _, after = sentence.partition("{object}")
            assert "{subject}" in before.split() and not after
            assert asked.setdefault(before, relation) == relation


def test_held_out_sentences_share_no_three_words_in_a_row_with_training(told):
    for relation, one in told.items():
        assert not triples(relation, one.held_out) & triples(relation, one.train)
        trained = triples(relation, (*one.train, *one.questions))
        assert not triples(relation, one.held_out_questions) & trained


def test_held_out_sentences_have_only_words_that_are_trained(told):
    def words(*kinds: str) -> set[str]:
        sentences = (getattr(one, kind) for one in told.values() for kind in kinds)
        return set(" ".join(itertools.chain.from_iterable(sentences)).split())

    assert words("held_out") <= words("train")
    assert words("held_out_questions") <= words("train", "questions")


def test_the_object_is_expected_where_held_out_sentences_have_it(told):
    """Else a model that knows the fact says another word first: a recall of 0 that says nothing about facts."""
    pairs = ((("held_out",), ("train",)), (("held_out_questions",), ("train", "questions")))
    for one in told.values():
        for asked, trained in pairs:
            before = [
                {sentence.split()[-2] for kind in kinds for sentence in getattr(one, kind)}
                for kinds in (asked, trained)
            ]
            assert before[0] <= before[1]


def test_relations_begin_with_different_frames():
    """So that with four sentences a relation, all relations together still have most of the words."""
    turns = [templates("country", turn).train[:4] for turn in range(9)]
    assert len({sentences[0].partition(" , ")[2] or sentences[0] for sentences in turns}) == 9
    assert {len(set(sentences)) for sentences in turns} == {4}


def test_frames_stand_for_all_their_alternatives():
    assert expanded("the N of {subject} (is|was) {object}", "(home|town)") == [
        "the home of {subject} is {object}",
        "the home of {subject} was {object}",
        "the town of {subject} is {object}",
        "the town of {subject} was {object}",
    ]
    assert expanded("{subject} is in {object}", "N") == ["{subject} is in {object}"]
