"""Does confidence tell known subjects from unknown ones: counting over all pairs and all thresholds."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Lookup, answers_of, certain, oracle
from stubs import WRITINGS, ids_of, question, seeded, small_world, templates_of

from memlayers.facts.world import PAD, World, known_facts
from memlayers.recall import measure as module
from memlayers.recall.measure import auroc, familiarity, measure, unknown_subjects
from memlayers.text import Text

scores = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5]) | st.floats(-5, 0, width=32), min_size=1, max_size=25)


@given(positive=scores, negative=scores)
def test_auroc_is_the_share_of_pairs_in_the_right_order(positive, negative):
    pairs = [1.0 if own > other else 0.5 if own == other else 0.0 for own in positive for other in negative]
    wanted = sum(pairs) / len(pairs)
    assert auroc(torch.tensor(positive), torch.tensor(negative)) == pytest.approx(wanted, abs=1e-9)


class Confident:
    """Asks about confidence: each question gets an answer, right or not, and a probability, by a draw of its own.

    One share is sure (probability 1), one is without a clue (uniform), both exactly tied; the rest is in between.
    """

    def __init__(self, text: Text, seed: int, sure: float, skill: float):
        self.text, self.size = text, len(text.vocabulary)
        self.known, self.sure, self.skill, self.seed = answers_of(text), sure, skill, seed
        self.model = Lookup(self.size, self.say)

    def draw(self, prefix: tuple[int, ...]) -> tuple[bool, str, float]:
        generator = torch.Generator().manual_seed(hash((self.seed, prefix)) % 2**31)
        right, kind, level = torch.rand(3, generator=generator).tolist()
        is_known = prefix in self.known
        level = 0.3 + 0.3 * level + (0.3 * self.skill if is_known else 0.0)
        return is_known and right < 0.7, "sure" if kind < self.sure else "clueless" if kind > 0.8 else "between", level

    def say(self, prefix: tuple[int, ...]) -> torch.Tensor:
        right, kind, level = self.draw(prefix)
        token = self.known[prefix] if right else 1
        if kind == "sure":
            return certain(self.size, token)
        if kind == "clueless":
            return torch.zeros(self.size)
        logits = torch.full((self.size,), math.log((1 - level) / (self.size - 1)))
        logits[token] = math.log(level)
        return logits

    def outcome(self, prefix: tuple[int, ...]) -> tuple[bool, float]:
        """Is the answer right, and how confident is it."""
        right, kind, level = self.draw(prefix)
        confidence = {"sure": 1.0, "clueless": 1 / self.size, "between": level}[kind]
        return right and kind != "clueless", confidence  # without a clue the first token is said: padding


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("sure", "skill"), [(0.0, 0.0), (0.0, 1.0), (0.03, 0.5), (0.3, 0.5)])
def test_known_against_unknown_subjects_over_all_pairs_and_thresholds(seed, sure, skill):
    text = Text(small_world("biographies"), "terse")
    world, stub = text.world, Confident(text, seed, sure, skill)
    found = unknown_subjects(stub.model, text, known_facts(world))
    of_known, of_unknown = ([stub.outcome(prefix) for prefix in asked] for asked in stub.model.asked)
    assert len(of_known) == len(of_unknown) == world.num_facts
    order = [1.0 if own > other else 0.5 if own == other else 0.0 for _, own in of_known for _, other in of_unknown]
    assert found["auroc"] == pytest.approx(sum(order) / len(order), abs=1e-9)
    for share, name in ((0.01, "recall_at_1"), (0.05, "recall_at_5")):
        best = 0.0
        for _, threshold in of_unknown:  # the most that can be had while at most that share of strangers passes
            passed = sum(confidence > threshold for _, confidence in of_unknown) / len(of_unknown)
            if passed <= share:
                best = max(best, sum(hit and own > threshold for hit, own in of_known) / len(of_known))
        assert found[name] == pytest.approx(best, abs=1e-9)
    assert found["recall_at_1"] <= found["recall_at_5"] <= sum(hit for hit, _ in of_known) / len(of_known)
    if skill == 1:
        assert found["recall_at_5"] > 0.3


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_known_and_unknown_subjects_are_asked_the_same_relations(kind, style):
    text = Text(small_world(kind), style)
    world, ids, model = text.world, ids_of(text), oracle(text)
    unknown_subjects(model, text, known_facts(world))
    questions = {}
    for subject in range(len(world.subjects) + len(world.unknown)):
        for relation in range(len(world.relations)):
            for template in templates_of(world, style, relation, "training"):
                told = tuple(ids[word] for word in question(world, subject, template))
                questions[told] = (subject >= len(world.subjects), subject, relation)
    asked = [questions[prefix] for call in model.asked for prefix in call if prefix in questions]
    known = [one for one in asked if not one[0]]
    strangers = [one for one in asked if one[0]]
    assert len(set(known)) == len(known) == len(strangers) == world.num_facts
    assert Counter(relation for *_, relation in known) == Counter(relation for *_, relation in strangers)
    assert len({subject for _, subject, _ in strangers}) > 1


@pytest.mark.parametrize("kind", ["biographies", "airports", "triples"])
def test_tokens_that_known_names_share_tell_them_from_others_by_counting(kind):
    text = Text(small_world(kind), "terse")
    world = text.world
    known = [[token for token in row if token != PAD] for row in world.subjects.tolist()]
    others = [[token for token in row if token != PAD] for row in world.unknown.tolist()]
    scores = [sum(sum(token in other for other in known) for token in name) / len(name) for name in [*known, *others]]
    assert familiarity(text, torch.arange(len(scores))).tolist() == pytest.approx(scores)
    found = unknown_subjects(oracle(text), text, known_facts(world))
    facts = known_facts(world)[torch.randperm(world.num_facts, generator=seeded(2))]
    own = familiarity(text, facts[:, 0]).tolist()
    generator = seeded(2)
    torch.randperm(world.num_facts, generator=generator)
    strangers = torch.randint(len(others), (world.num_facts,), generator=generator) + len(known)
    theirs = familiarity(text, strangers).tolist()
    order = [1.0 if a > b else 0.5 if a == b else 0.0 for a in own for b in theirs]
    assert found["auroc_by_tokens"] == pytest.approx(sum(order) / len(order))


def test_confidence_is_compared_on_a_limited_sample(monkeypatch):
    monkeypatch.setattr(module, "MAX_CONFIDENCE", 10)
    text = Text(small_world("biographies"), "terse")
    model = oracle(text)
    unknown_subjects(model, text, known_facts(text.world))
    assert [len(set(call)) for call in model.asked] == [10, 10]


def without_strangers(world: World) -> World:
    return type(world)(**{**vars(world), "unknown": world.unknown[:0]})


def test_a_world_without_unknown_subjects_leaves_those_numbers_out():
    text = Text(without_strangers(small_world("biographies")), "terse")
    found = measure(oracle(text), text, 100)
    assert set(found["unknown"].values()) == {None} and found["exact"] == 1
