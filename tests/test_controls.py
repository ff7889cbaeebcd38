"""What recall is compared with: priors, the commonest object, facts dealt anew; and samples of the facts."""

import math
from collections import Counter
from itertools import pairwise

import pytest
from oracles import oracle
from stubs import KINDS, small_world

from memlayers.facts.world import World, known_facts
from memlayers.recall.ask import ask, majority_share, prior_bits, sample_facts, shuffled
from memlayers.text import Text


def naive_prior(world: World, relation: int) -> dict[int, float]:
    mass: Counter[int] = Counter()
    for subject in range(len(world.subjects)):
        if int(world.facts[subject, relation]) >= 0:
            mass[int(world.facts[subject, relation])] += float(world.weights[subject, relation])
    return {row: weight / sum(mass.values()) for row, weight in mass.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_prior_bits_and_the_majority_by_counting(kind):
    world = small_world(kind)
    facts = known_facts(world)
    priors = [naive_prior(world, relation) for relation in range(len(world.relations))]
    wanted = [-math.log2(priors[r][int(world.facts[s, r])]) for s, r in facts.tolist()]
    assert prior_bits(world, facts).tolist() == pytest.approx(wanted, rel=1e-6)
    some = facts[1::2]
    assert prior_bits(world, some).tolist() == pytest.approx(wanted[1::2], rel=1e-6)
    for part in (facts, some):
        shares = []
        for relation, prior in enumerate(priors):  # of several equally common objects any will do
            mine = [int(world.facts[s, r]) for s, r in part.tolist() if r == relation]
            best = max(prior.values())
            shares.append({mine.count(row) for row, share in prior.items() if share == pytest.approx(best)})
        low, high = (sum(pick(found) for found in shares) / len(part) for pick in (min, max))
        assert low - 1e-9 <= majority_share(world, part) <= high + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_shuffled_control_deals_the_same_objects_to_other_subjects(kind):
    world = small_world(kind)
    before = world.facts.clone()
    control, again, other = (shuffled(world, seed) for seed in (1, 1, 2))
    assert control.equal(again) and not control.equal(other) and world.facts.equal(before)
    for own, dealt in zip(world.facts.T, control.T, strict=True):
        assert (own < 0).equal(dealt < 0) and not own.equal(dealt)
        assert Counter(own.tolist()) == Counter(dealt.tolist())


def test_against_the_shuffled_control_an_oracle_is_right_where_the_deal_changed_nothing():
    text = Text(small_world("triples"), "prose")
    world = text.world
    control = shuffled(world, 1)
    answers = ask(oracle(text), text, known_facts(world), "training", control)
    pairs = list(zip(answers.subject.tolist(), answers.relation.tolist(), strict=True))
    same = [int(control[pair]) == int(world.facts[pair]) for pair in pairs]
    assert answers.exact.tolist() == same and 0 < sum(same) < len(same)
    assert (answers.surprise == 0).tolist() == same


def test_shuffles_give_every_subject_every_object_alike():
    world = small_world("triples")
    counts = Counter(int(shuffled(world, seed)[0, 1]) for seed in range(400))
    prior = Counter(world.facts[:, 1].tolist())
    for row, times in prior.items():
        share = times / len(world.subjects)
        assert abs(counts[row] - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_facts_is_seeded_without_repeats_and_grows(kind):
    world = small_world(kind)
    everything = set(map(tuple, known_facts(world).tolist()))
    assert sample_facts(world, world.num_facts).tolist() == known_facts(world).tolist()
    samples = [list(map(tuple, sample_facts(world, limit).tolist())) for limit in (1, 10, 30)]
    for limit, found in zip((1, 10, 30), samples, strict=True):
        assert len(found) == len(set(found)) == limit and set(found) <= everything
    assert all(long[: len(short)] == short for short, long in pairwise(samples))
    assert sorted(samples[-1]) != sorted(everything)[:30]
