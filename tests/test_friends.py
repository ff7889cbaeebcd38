"""Facts over a friend: what they are, of whom training tells them, and how their recall is counted."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from commands import refusal
from oracles import Lookup, certain, small_model
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.facts.world import known_facts
from memlayers.recall.ask import prior_bits
from memlayers.recall.composed import composed
from memlayers.recall.measure import measure
from memlayers.text import Text, text_of

BASE = BiographiesConfig(name="biographies", num_people=60, name_parts=[20] * 3, cardinalities=[7, 9], two_hop=0.25)


@pytest.fixture
def text() -> Text:
    return text_of(BASE)


def test_every_fact_over_a_friend_is_a_fact_of_that_friend(text):
    world = text.world
    assert world.relations == ("birth_date", "birth_city", "friend", "friend_birth_date", "friend_birth_city")
    plain = text_of(replace(BASE, two_hop=0.0)).world
    assert torch.equal(world.facts[:, :2], plain.facts) and torch.equal(world.subjects, plain.subjects)
    for person, (date, city, friend, friends_date, friends_city) in enumerate(world.facts.tolist()):
        assert friend != person and world.objects[2][friend].tolist() == world.subjects[friend].tolist()
        assert [date, city] == world.facts[person, :2].tolist()
        assert [friends_date, friends_city] == world.facts[friend, :2].tolist()
    assert world.facts[:, 2].unique().numel() > 25  # drawn with replacement, of 60


def test_training_tells_facts_over_a_friend_of_a_share_of_people_in_all_relations_but_one(text):
    world = text.world
    told = world.is_told[:, 3:]
    assert told.sum(dim=1).bincount().tolist() == [45, 15] and world.is_told[:, :3].all()
    assert told.any(dim=0).all() and world.num_facts == 60 * 3 + 15 == len(known_facts(world))
    tokens = text.sample(20_000, seeded(1)).tokens
    said = {tuple(row) for row in tokens.tolist()}
    every = text.probe((world.facts >= 0).nonzero(), "training", seeded())
    width = tokens.shape[1]
    for row, subject, relation in zip(every.documents.tokens.tolist(), every.subject, every.relation, strict=True):
        assert (tuple((row + [0] * width)[:width]) in said) == bool(world.is_told[subject, relation])
    assert text.mean_exposures == pytest.approx(1 / world.num_facts)


def knowing(text: Text, share: int) -> tuple[Lookup, dict[tuple[int, int], bool]]:
    """A model that knows one of so many facts, told or not, and whether it knows each."""
    facts, size = (text.world.facts >= 0).nonzero(), len(text.vocabulary)
    probe = text.probe(facts, "training", seeded())
    known, answers = {}, {}
    for row, marks, (subject, relation) in zip(
        probe.documents.tokens.tolist(), probe.documents.answers.tolist(), facts.tolist(), strict=True
    ):
        known[subject, relation] = (7 * subject + 5 * relation) % share == 0
        if known[subject, relation]:
            answers |= {tuple(row[:at]): row[at] for at, mark in enumerate(marks) if mark}
    say = lambda prefix: certain(size, answers[prefix]) if prefix in answers else torch.zeros(size)  # noqa: E731
    return Lookup(size, say), known


def test_recall_of_composed_facts_against_loops(text):
    world = text.world
    model, known = knowing(text, 2)
    counts: dict[str, list[bool]] = defaultdict(list)
    for subject in range(60):
        friend = int(world.facts[subject, 2])
        is_named = bool(world.is_told[subject, 3:].any())
        for one in (0, 1):
            right, both = known[subject, 3 + one], known[subject, 2] and known[friend, one]
            if world.is_told[subject, 3 + one]:
                counts["told"].append(right)
                continue
            kind = "withheld" if is_named else "untold"
            counts[kind].append(right)
            counts[f"{kind}_if_known"] += [right] * both
            counts["in_steps"] += [both] * (kind == "untold")
    found = composed(model, text)
    assert found == {name: pytest.approx(sum(hits) / len(hits)) for name, hits in counts.items()}
    assert 0 < found["in_steps"] < found["untold"] < 1


def test_of_a_kind_that_is_not_there_nothing_is_said(text):
    found = composed(knowing(text, 10**9)[0], text)  # knows one fact
    assert found["untold"] == found["in_steps"] == 0 and found["untold_if_known"] is None


def test_facts_over_a_friend_hold_no_bits_of_their_own(text):
    found = measure(small_model(text, steps=1), text, documents=10)
    single = [name for name in found["by_relation"] if not name.startswith("friend_")]
    bits = sum(float(prior_bits(text.world, facts_of(text, name)).sum()) for name in single)
    assert len(single) == 3 and found["world_bits"] == pytest.approx(bits)
    assert found["composed"] is not None


def facts_of(text: Text, relation: str) -> torch.Tensor:
    return torch.tensor([[subject, text.world.relations.index(relation)] for subject in range(60)])


def test_a_world_without_friends_has_no_such_recall():
    assert composed(Lookup(1, lambda _: torch.zeros(1)), text_of(replace(BASE, two_hop=0.0))) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["world.two_hop=1.5"], "world.two_hop=1.5 is out of range; accepted: 0.0 to 0.99"),
        (["world.two_hop=0.5", "world=biographies_prose"], "world.two_hop=0.5: friends have no sentences"),
        (["world.two_hop=0.5", "world.junk.share=0.5"], "world.two_hop=0.5: friends have no sentences, and junk no"),
        (["world.two_hop=0.5", "world=atlas_airports"], "world.two_hop=0.5: unknown key"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words, said):
    assert refusal("world=biographies", *words).startswith(said)


@pytest.mark.parametrize(("share", "people"), [(0.001, 60), (0.99, 10)])
def test_nobody_and_everybody_are_refused(share, people):
    with pytest.raises(
        ValueError, match=rf"^world.two_hop={share}: .* of (0 of 60|10 of 10) subjects, in all .* accepted: "
    ):
        text_of(replace(BASE, two_hop=share, num_people=people))
