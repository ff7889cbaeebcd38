"""The read-outs of a record: models that know everything or nothing, and counting over all pairs and thresholds."""

import json
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stubs import KINDS, Lookup, certain, question, sentences, small_world, spelt, templates_of

from memlayers import measure as module
from memlayers.facts.world import World
from memlayers.recall.measure import auroc, by_exposures, measure, unknown_subjects
from memlayers.recall.ask import Answers, majority_share, prior_bits, sample_facts, shuffled
from memlayers.text import Text, known_facts

WRITINGS = [(kind, style) for kind in KINDS for style in ("terse", "prose")]
PHRASINGS = ("training", "held_out")


def ids_of(text: Text) -> dict[str, int]:
    return {word: index for index, word in enumerate(text.vocabulary)}


def answers_of(text: Text) -> dict[tuple[int, ...], int]:
    """Every beginning of an answer that the naive writer tells, and the token that comes next."""
    ids, known = ids_of(text), {}
    for phrasing in PHRASINGS:
        for _, _, words, marks in sentences(text.world, text.style, phrasing):
            tokens = tuple(ids[word] for word in words)
            known |= {tokens[:at]: tokens[at] for at, mark in enumerate(marks) if mark}
    return known


def oracle(text: Text) -> Lookup:
    known, size = answers_of(text), len(text.vocabulary)
    return Lookup(size, lambda prefix: certain(size, known[prefix]) if prefix in known else torch.zeros(size))


def without_strangers(world: World) -> World:
    return type(world)(**{**vars(world), "unknown": world.unknown[:0]})


# --------------------------------------------------------------------------- all of it


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_a_model_that_knows_all_has_every_read_out_at_its_best(kind, style):
    text = Text(small_world(kind), style)
    world, facts = text.world, known_facts(text.world)
    found = measure(oracle(text), text, 1_000)
    json.dumps(found, allow_nan=False)
    assert found["num_facts"] == found["asked"] == len(facts)
    assert found["exact"] == 1 and found["held_out"] == (None if style == "terse" else 1)
    assert found["world_bits"] == pytest.approx(float(prior_bits(world, facts).sum()))
    assert found["stored_bits"] == pytest.approx(found["world_bits"], rel=1e-9)
    assert found["by_relation"] == dict.fromkeys(world.relations, 1.0)
    assert found["by_exposures"] and set(found["by_exposures"].values()) == {1.0}
    assert found["unknown"] == {"auroc": 1.0, "recall_at_1": 1.0, "recall_at_5": 1.0}
    assert found["floor"] == majority_share(world, facts) < 1
    control, own = shuffled(world, 1), world.facts
    assert found["shuffled"] == pytest.approx(float((control == own)[own >= 0].double().mean()))


def test_a_model_that_knows_only_the_commonest_objects_is_at_the_floor():
    """It gives each attribute its frequencies in the world, whoever is asked about."""
    text = Text(small_world("biographies"), "terse")
    world, ids = text.world, ids_of(text)
    told = [Counter() for _ in world.relations]
    for subject, relation in known_facts(world).tolist():
        word = spelt(world, world.objects[relation][int(world.facts[subject, relation])])[0]
        told[relation][ids[word]] += float(world.weights[subject, relation])
    relation_of = {ids[f"[{name}]"]: index for index, name in enumerate(world.relations)}

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        chances = torch.zeros(len(ids), dtype=torch.float64)
        for token, weight in told[relation_of[prefix[-1]]].items():
            chances[token] = weight
        return chances.log().float()

    found = measure(Lookup(len(ids), say), text, 1_000)
    assert abs(found["stored_bits"]) < 1e-5 * found["num_facts"] < found["world_bits"]
    assert found["exact"] == pytest.approx(found["floor"]) and 0 < found["floor"] < 1
    assert found["unknown"] == {"auroc": 0.5, "recall_at_1": 0.0, "recall_at_5": 0.0}  # nobody is anybody to it


def test_a_model_that_is_sure_and_wrong_stores_less_than_nothing():
    text = Text(small_world("biographies"), "terse")
    known, size = answers_of(text), len(text.vocabulary)

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        logits = torch.zeros(size)
        logits[(known[prefix] + 1) % size if prefix in known else 1] = 20.0
        return logits

    found = measure(Lookup(size, say), text, 1_000)
    assert found["exact"] == 0 and found["stored_bits"] < -10 * found["num_facts"]


def test_a_sample_of_the_facts_stands_for_the_whole_world(monkeypatch):
    monkeypatch.setattr(module, "MAX_FACTS", 40)
    text = Text(small_world("biographies"), "prose")
    world = text.world
    found = measure(oracle(text), text, 1_000)
    asked = sample_facts(world, 40)
    scale = world.num_facts / 40
    assert found["num_facts"] == 180 and found["asked"] == 40
    assert found["world_bits"] == pytest.approx(scale * float(prior_bits(world, asked).sum()))
    assert found["stored_bits"] == pytest.approx(found["world_bits"], rel=1e-9)
    assert found["floor"] == majority_share(world, asked)


def test_shares_are_counted_over_the_facts_of_each_relation_and_bucket():
    """A model that knows two subjects in three, and the third only in one relation."""
    text = Text(small_world("biographies"), "terse", "subject")
    world, size = text.world, len(text.vocabulary)
    ids, known = ids_of(text), answers_of(text)
    knows = {}
    for subject, relation, words, marks in sentences(world, "terse", "training"):
        prefix = tuple(ids[word] for word in words[: marks.index(True)])
        if subject % 3 or relation == 1:
            knows[prefix] = known[prefix]
    documents = 500
    found = measure(Lookup(size, lambda prefix: certain(size, knows.get(prefix, 0))), text, documents)
    right = {(s, r): bool(s % 3 or r == 1) for s, r in known_facts(world).tolist()}
    assert found["exact"] == pytest.approx(sum(right.values()) / len(right))
    for index, name in enumerate(world.relations):
        mine = [hit for (_, relation), hit in right.items() if relation == index]
        assert found["by_relation"][name] == pytest.approx(sum(mine) / len(mine))
    total = sum(max(row) for row in world.weights.tolist())
    shown = {(s, r): documents * float(world.weights[s, r]) / total for s, r in right}
    wanted = naive_buckets([(shown[fact], hit) for fact, hit in right.items()])
    assert len(wanted) >= 3 and found["by_exposures"] == pytest.approx(wanted)


# --------------------------------------------------------------------------- by exposures


def naive_buckets(pairs: list[tuple[float, bool]]) -> dict[str, float]:
    names = {"0-0": 1, "1-3": 4, "4-15": 16, "16-63": 64, "64-255": 256, "256-1023": 1024, "1024+": math.inf}
    hits: dict[str, list[bool]] = {}
    for exposures, hit in pairs:
        hits.setdefault(next(name for name, end in names.items() if exposures < end), []).append(hit)
    return {name: sum(own) / len(own) for name, own in hits.items()}


edges = st.sampled_from([0.0, 0.5, 1.0, 3.999, 4.0, 15.5, 16.0, 63.0, 64.0, 255.9, 256.0, 1023.0, 1024.0, 1e6])


@given(pairs=st.lists(st.tuples(edges | st.floats(0, 2_000), st.booleans()), max_size=40))
def test_buckets_of_exposures_by_counting(pairs):
    zeros, exact = torch.zeros(len(pairs)), torch.tensor([hit for _, hit in pairs], dtype=torch.bool)
    exposures = torch.tensor([exposures for exposures, _ in pairs], dtype=torch.float64)
    found = by_exposures(Answers(zeros.long(), zeros.long(), exact, zeros), exposures)
    assert found == pytest.approx(naive_buckets(pairs))
    order = ["0-0", "1-3", "4-15", "16-63", "64-255", "256-1023", "1024+"]
    assert list(found) == [name for name in order if name in found]


# --------------------------------------------------------------------------- confidence

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


def test_confidence_is_compared_on_a_limited_sample(monkeypatch):
    monkeypatch.setattr(module, "MAX_CONFIDENCE", 10)
    text = Text(small_world("biographies"), "terse")
    model = oracle(text)
    unknown_subjects(model, text, known_facts(text.world))
    assert [len(set(call)) for call in model.asked] == [10, 10]


def test_a_world_without_unknown_subjects_leaves_those_numbers_out():
    text = Text(without_strangers(small_world("biographies")), "terse")
    found = measure(oracle(text), text, 100)
    assert found["unknown"] == {"auroc": None, "recall_at_1": None, "recall_at_5": None} and found["exact"] == 1
