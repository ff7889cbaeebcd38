"""Recall against models that look their answers up, so that what they know is known."""

import math
from collections import Counter

import pytest
import torch
from oracles import Lookup, oracle, small_model
from stubs import PHRASINGS, WRITINGS, ids_of, question, seeded, small_world, spelt, templates_of

from memlayers.facts.world import END, known_facts
from memlayers.recall.ask import ask, decode, prior_bits
from memlayers.text import Text


def text_of(kind: str, style: str) -> tuple[Text, dict[str, int]]:
    text = Text(small_world(kind), style)
    return text, ids_of(text)


def by_frequency(text: Text) -> Lookup:
    """Knows how often each object of a relation is told and nothing about any subject."""
    world, ids = text.world, ids_of(text)
    mass: list[Counter[tuple[int, ...]]] = [Counter() for _ in world.relations]
    for subject, relation in known_facts(world).tolist():
        spelling = tuple(spelt(world, world.objects[relation][int(world.facts[subject, relation])]))
        mass[relation][tuple(ids[word] for word in spelling)] += float(world.weights[subject, relation])
    questions = {}
    for subject in range(len(world.subjects) + len(world.unknown)):
        for relation in range(len(world.relations)):
            for phrasing in PHRASINGS:
                for template in templates_of(world, text.style, relation, phrasing):
                    words = question(world, subject, template)
                    questions[tuple(ids[word] for word in words)] = relation

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        length = next(length for length in range(len(prefix), 0, -1) if prefix[:length] in questions)
        begun, table = prefix[length:], mass[questions[prefix[:length]]]
        following = torch.zeros(len(ids), dtype=torch.float64)
        for spelling, weight in table.items():
            if spelling[: len(begun)] == begun and len(spelling) > len(begun):
                following[spelling[len(begun)]] += weight
        return following.log().float() if following.any() else torch.zeros(len(ids))

    return Lookup(len(ids), say)


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_an_oracle_is_always_right_and_never_surprised(kind, style, phrasing):
    text, _ = text_of(kind, style)
    world, facts = text.world, known_facts(text.world)
    answers = ask(oracle(text), text, facts, phrasing)
    wanted = [[s, r] for s, r in facts.tolist() if templates_of(world, style, r, phrasing)]
    assert torch.stack([answers.subject, answers.relation], dim=1).tolist() == wanted
    assert len(answers.exact) == len(answers.surprise) == len(wanted)
    assert answers.exact.all() and not answers.surprise.any()
    assert bool(wanted) == (style == "prose" or phrasing == "training")


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_a_uniform_guesser_pays_the_logarithm_of_the_vocabulary_for_each_token(kind, style):
    text, ids = text_of(kind, style)
    world = text.world
    answers = ask(Lookup(len(ids), lambda prefix: torch.zeros(len(ids))), text, known_facts(world), "training")
    lengths = [
        len(spelt(world, world.objects[r][int(world.facts[s, r])]))
        for s, r in zip(answers.subject.tolist(), answers.relation.tolist(), strict=True)
    ]
    assert answers.surprise.tolist() == pytest.approx([math.log2(len(ids)) * length for length in lengths], rel=1e-5)
    assert not answers.exact.any()


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_a_model_that_answers_by_frequency_stores_no_bit(kind, style, phrasing):
    """Its surprise at each fact is the fact's prior bits, so their difference vanishes fact by fact."""
    text, _ = text_of(kind, style)
    answers = ask(by_frequency(text), text, known_facts(text.world), phrasing)
    prior = prior_bits(text.world, torch.stack([answers.subject, answers.relation], dim=1))
    torch.testing.assert_close(answers.surprise.double(), prior, rtol=1e-5, atol=1e-5)
    assert abs(float(prior.sum() - answers.surprise.double().sum())) <= 1e-5 * len(prior)


def test_one_wrong_token_spoils_the_object_and_its_surprise_is_counted_in_bits():
    text, ids = text_of("airports", "terse")
    world, icao = text.world, text.world.relations.index("icao")
    facts = known_facts(world)
    facts = facts[facts[:, 1] == icao]
    right, size = oracle(text), len(ids)
    for spoiled in range(4):  # a token of four is given a quarter of the probability, and another one the rest

        def say(prefix, spoiled=spoiled):
            logits = right.say(prefix)
            token = int(logits.argmax())
            if len(prefix) != 3 + spoiled or not text.vocabulary[token].startswith("icao:"):
                return logits
            shared = torch.full((size,), -1000.0)
            shared[token], shared[END] = math.log(0.25), math.log(0.75)
            return shared

        answers = ask(Lookup(size, say), text, facts, "training")
        assert not answers.exact.any()
        assert answers.surprise.tolist() == pytest.approx([2.0] * len(facts), abs=1e-4)


def test_questions_in_pieces_are_answered_as_one(monkeypatch):
    text, _ = text_of("airports", "prose")
    facts, model = known_facts(text.world), small_model(text, 20)
    whole = ask(model, text, facts, "training")
    monkeypatch.setattr("memlayers.recall.ask.CHUNK", 7)
    pieces = ask(model, text, facts, "training")
    assert 0 < whole.exact.double().mean() < 1
    assert pieces.exact.equal(whole.exact) and pieces.subject.equal(whole.subject)
    torch.testing.assert_close(pieces.surprise, whole.surprise, rtol=1e-4, atol=1e-4)


def test_nothing_asked_is_nothing_answered():
    text, _ = text_of("readings", "terse")
    model = oracle(text)
    for facts, phrasing in ((known_facts(text.world), "held_out"), (known_facts(text.world)[:0], "training")):
        answers = ask(model, text, facts, phrasing)
        assert [len(part) for part in answers] == [0] * 4 and answers.exact.dtype == torch.bool
    assert not model.asked


# --------------------------------------------------------------------------- the mode of the model


def asked(way: str, model, text: Text) -> None:
    """By one forward pass, or by decoding."""
    facts = known_facts(text.world)
    if way == "ask":
        ask(model, text, facts, "training")
    else:
        decode(model, text.probe(facts, "training", seeded()).documents, torch.full((len(facts),), 2))


@pytest.mark.parametrize("way", ["ask", "decode"])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_answers_in_evaluation_mode_and_is_left_in_the_mode_it_was_in(way, training):
    text, _ = text_of("readings", "terse")
    model, modes = small_model(text, 0), []
    model.train(training)
    hook = model.norm.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    asked(way, model, text)
    assert modes and not any(modes)
    assert {module.training for module in model.modules()} == {training}
    hook.remove()

    def fail(*arguments) -> None:
        modes.append(model.training)
        raise RuntimeError("out of memory")

    model.norm.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        asked(way, model, text)
    assert not modes[-1] and {module.training for module in model.modules()} == {training}
