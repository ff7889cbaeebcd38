"""Questions against the naive sentences; the vocabulary; what can be told and not asked."""

import pytest
import torch
from reader import decoded, small_text
from stubs import PHRASINGS, WRITINGS, name_of, seeded, sentences, small_world, spelt, templates_of, write

from memlayers.documents import chunks
from memlayers.facts.world import Templates, known_facts
from memlayers.text import Text


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_questions_are_the_naive_sentences_and_never_begin_with_the_answer(kind, style, phrasing):
    text = small_text(kind, style)
    world = text.world
    facts = known_facts(world).repeat(8, 1)
    probe = text.probe(facts, phrasing, seeded())
    ways = [templates_of(world, style, relation, phrasing) for relation in range(len(world.relations))]
    kept = [(s, r) for s, r in facts.tolist() if ways[r]]
    assert list(zip(probe.subject.tolist(), probe.relation.tolist(), strict=True)) == kept
    used = set()
    for (subject, relation), (words, marks) in zip(kept, decoded(text, probe.documents), strict=True):
        told = {one: write(world, style, subject, [(relation, one)]) for one in ways[relation]}
        found = [one for one, (w, m) in told.items() if (tuple(w), tuple(m)) == (words, marks)]
        assert len(found) == 1, words
        assert any(marks) and words.index(name_of(world, subject)[0]) < marks.index(True)
        used.add((relation, found[0]))
    assert used == {(relation, one) for relation, several in enumerate(ways) for one in several}
    if phrasing != "training":
        assert (style == "terse") == (not kept)
    elif style == "prose" and kind == "triples":
        assert any(len(templates_of(world, style, r, "train")) > len(ways[r]) for r in range(len(ways)))


def test_a_question_with_other_answers_asks_the_same_and_ends_differently():
    text = small_text("triples", "prose")
    world = text.world
    answers = world.facts.clone()
    answers[:, 0] = (answers[:, 0] + 1) % len(world.objects[0])
    facts = known_facts(world)
    own, other = (text.probe(facts, "training", seeded(3), table) for table in (None, answers))
    rows = zip(facts.tolist(), decoded(text, own.documents), decoded(text, other.documents), strict=True)
    for (subject, relation), (words, marks), (other_words, other_marks) in rows:
        start = marks.index(True)
        assert other_words[:start] == words[:start] and other_marks.index(True) == start
        said = [word for word, mark in zip(other_words, other_marks, strict=True) if mark]
        assert said == spelt(world, world.objects[relation][int(answers[subject, relation])])


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_unknown_subjects_are_asked_by_name(kind, style):
    text = small_text(kind, style)
    world = text.world
    strangers = torch.arange(len(world.subjects), len(world.subjects) + min(4, len(world.unknown)))
    facts = torch.stack([strangers, torch.zeros_like(strangers)], dim=1)
    probe = text.probe(facts, "training", seeded())
    names = {tuple(name_of(world, subject)) for subject in range(len(world.subjects))}
    assert len(strangers) == 4 and probe.subject.equal(strangers)
    for stranger, (words, marks) in zip(strangers.tolist(), decoded(text, probe.documents), strict=True):
        question, name = words[: marks.index(True)], tuple(name_of(world, stranger))
        assert name not in names
        assert name in {question[at : at + len(name)] for at in range(len(question))}


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_chunks_put_together_are_the_whole(size):
    text = small_text("airports", "prose")
    probe = text.probe(known_facts(text.world), "training", seeded())
    parts = list(chunks(probe, size))
    assert all(len(part.subject) == size for part in parts[:-1]) and 0 < len(parts[-1].subject) <= size
    for name in ("subject", "relation"):
        assert torch.cat([getattr(part, name) for part in parts]).equal(getattr(probe, name))
    for name in ("tokens", "answers"):
        whole = torch.cat([getattr(part.documents, name) for part in parts])
        assert whole.equal(getattr(probe.documents, name))


# --------------------------------------------------------------------------- what is known, and what can be asked


def test_known_facts_are_those_with_an_object():
    world = small_world("triples")
    wanted = [[s, r] for s in range(len(world.subjects)) for r in range(3) if int(world.facts[s, r]) >= 0]
    assert known_facts(world).tolist() == wanted and len(wanted) == world.num_facts < 3 * len(world.subjects)


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_the_vocabulary_extends_the_worlds_and_names_every_word_once(kind, style):
    text = small_text(kind, style)
    world = text.world
    assert text.vocabulary[: len(world.vocabulary)] == world.vocabulary
    assert len(set(text.vocabulary)) == len(text.vocabulary)
    told = [words for phrasing in ("train", *PHRASINGS) for _, _, words, _ in sentences(world, style, phrasing)]
    words = {word for one in told for word in one}
    assert words <= set(text.vocabulary)
    extra = set(text.vocabulary[len(world.vocabulary) :])
    assert extra <= words


def test_prose_needs_templates():
    world = small_world("biographies")
    bare = type(world)(**{**vars(world), "templates": ()})
    with pytest.raises(ValueError) as caught:
        Text(bare, "prose")
    assert str(caught.value) == "world.text=prose: world biographies has no templates; accepted: terse"
    Text(bare, "terse")


def test_a_world_that_can_be_told_but_not_asked_is_refused():
    """Every object before its subject: nothing to answer, no loss on answers, no recall."""
    world = small_world("biographies")
    backward = tuple(
        Templates((f"{{object}} is {name} of {{subject}}",), ("of {subject}: {object}",)) for name in "abc"
    )
    with pytest.raises(ValueError) as caught:
        Text(type(world)(**{**vars(world), "templates": backward}), "prose")
    assert str(caught.value) == (
        "world.text=prose: all training templates have the object first; accepted: a template with the subject first, "
        "to ask with"
    )
    one = (*backward[:2], Templates(("{subject} of {object}",)))
    text = Text(type(world)(**{**vars(world), "templates": one}), "prose")
    assert set(text.probe(known_facts(world), "training", seeded()).relation.tolist()) == {2}
