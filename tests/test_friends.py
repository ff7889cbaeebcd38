"""Facts over a friend: what they are, of whom training tells them, and how their recall is counted."""

from dataclasses import replace

import pytest
import torch
from commands import refusal
from oracles import Lookup, certain
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.facts.world import known_facts
from memlayers.recall.composed import composed
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


def test_training_tells_facts_over_a_friend_of_a_share_of_people_only(text):
    world = text.world
    told = world.is_told[:, 3:]
    assert (told.sum(dim=1) % 2 == 0).all() and int(told.sum()) == 2 * 15 and world.is_told[:, :3].all()
    assert world.num_facts == 60 * 3 + 2 * 15 == len(known_facts(world))
    tokens = text.sample(20_000, seeded(1)).tokens
    said = {tuple(row) for row in tokens.tolist()}
    every = text.probe((world.facts >= 0).nonzero(), "training", seeded())
    width = tokens.shape[1]
    for row, subject, relation in zip(every.documents.tokens.tolist(), every.subject, every.relation, strict=True):
        assert (tuple((row + [0] * width)[:width]) in said) == bool(world.is_told[subject, relation])
    assert text.mean_exposures == pytest.approx(1 / world.num_facts)


def test_recall_of_composed_facts_against_loops(text):
    """A model that knows a third of all facts, told or not."""
    world, size = text.world, len(text.vocabulary)
    facts = (world.facts >= 0).nonzero()
    probe = text.probe(facts, "training", seeded())
    known, answers = {}, {}
    for row, marks, (subject, relation) in zip(
        probe.documents.tokens.tolist(), probe.documents.answers.tolist(), facts.tolist(), strict=True
    ):
        if knows := (7 * subject + 5 * relation) % 3 == 0:
            answers |= {tuple(row[:at]): row[at] for at, mark in enumerate(marks) if mark}
        known[subject, relation] = knows
    model = Lookup(size, lambda prefix: certain(size, answers[prefix]) if prefix in answers else torch.zeros(size))
    counts: dict[str, list[bool]] = {"told": [], "untold": [], "in_steps": [], "untold_if_known": []}
    for subject in range(60):
        friend = int(world.facts[subject, 2])
        for one in (0, 1):
            right, both = known[subject, 3 + one], known[subject, 2] and known[friend, one]
            if world.is_told[subject, 3 + one]:
                counts["told"].append(right)
                continue
            counts["untold"].append(right)
            counts["in_steps"].append(both)
            counts["untold_if_known"] += [right] * both
    found = composed(model, text)
    assert found == {name: pytest.approx(sum(hits) / len(hits)) for name, hits in counts.items()}
    assert 0 < found["in_steps"] < found["untold"] < 1


def test_a_world_without_friends_has_no_such_recall():
    assert composed(Lookup(1, lambda _: torch.zeros(1)), text_of(replace(BASE, two_hop=0.0))) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["world.two_hop=1.5"], "world.two_hop=1.5 is out of range; accepted: 0.0 to 1.0"),
        (["world.two_hop=0.5", "world=biographies_prose"], "world.two_hop=0.5: friends have no sentences"),
        (["world.two_hop=0.5", "world.junk.share=0.5"], "world.two_hop=0.5: friends have no sentences, and junk no"),
        (["world.two_hop=0.5", "world=atlas_airports"], "world.two_hop=0.5: unknown key"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words, said):
    assert refusal("world=biographies", *words).startswith(said)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_nobody_and_everybody_are_refused(share):
    with pytest.raises(ValueError, match=rf"^world.two_hop={share}: .* of (0|60) of 60 subjects; accepted: "):
        text_of(replace(BASE, two_hop=share))
