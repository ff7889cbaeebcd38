"""A search for a friend: its scores against loops over tokens, its operators, and models whose answers are known."""

from functools import cache
from math import log

import pytest
import torch
from oracles import Lookup, certain, small_model
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.recall.search import GENERATIONS, Candidates, Search, searched
from memlayers.text import Text, text_of

WORLD = {"num_people": 60, "name_parts": [20] * 3, "cardinalities": [7, 9, 8], "two_hop": 0.25}
FRIEND = 3  # the relation


@pytest.fixture
def text() -> Text:
    return text_of(BiographiesConfig(name="biographies", **WORLD))


def unnamed(text: Text) -> torch.Tensor:
    """All facts over a friend of people of whom training tells none."""
    people = (~text.world.is_told[:, 4:].any(dim=1)).nonzero()[:, 0].tolist()
    return torch.tensor([[person, relation] for person in people for relation in (4, 5, 6)])


def question(text: Text, name: list[int], relation: int) -> list[int]:
    """The tokens in front of the answer."""
    return [*name, text.vocabulary.index(f"[{text.world.relations[relation]}]")]


def log_probability(model, prefix: list[int], answer: list[int]) -> float:
    total = 0.0
    for token in answer:
        total += float(after(model, tuple(prefix))[token])
        prefix = [*prefix, token]
    return total


@cache
@torch.no_grad()
def after(model, prefix: tuple[int, ...]) -> torch.Tensor:
    logits = model(torch.tensor([prefix]), torch.eye(len(prefix))[-1:].bool()).logits
    return logits[0].float().log_softmax(dim=-1)


@pytest.mark.parametrize("constraints", [0, 1, 2])
def test_scores_against_loops(text, constraints):
    world, model, facts = text.world, small_model(text, steps=60), unnamed(text)[:20]
    search = Search(model, text, facts, constraints)
    none = torch.zeros(len(facts), 3, dtype=torch.long)
    found = search.judged([search.spelt(none, greedy=True), search.spelt(none)])
    rights = 0
    for number, (person, relation) in enumerate(facts.tolist()):
        friend, asked = int(world.facts[person, FRIEND]), relation - 4
        told = [(asked + step) % 3 for step in range(1, constraints + 1)]
        for name, score, right in zip(
            found.names[number].tolist(), found.scores[number], found.right[number], strict=True
        ):
            wanted = log_probability(model, question(text, world.subjects[person].tolist(), FRIEND), name)
            for other in told:
                truth = world.objects[other][world.facts[friend, other]].tolist()
                wanted += log_probability(model, question(text, name, other), truth)
            prefix = question(text, name, asked)
            answers = [log_probability(model, prefix, [token]) for token in range(len(text.vocabulary))]
            assert float(score) == pytest.approx(wanted + max(answers), abs=1e-3)
            truth = int(world.objects[asked][world.facts[friend, asked]])
            assert bool(right) == (answers.index(max(answers)) == truth)
            rights += bool(right)
    assert 0 < rights < 2 * len(facts)


def doubting(text: Text) -> Lookup:
    """Knows all facts, but of a friend it says another's name with probability 0.6, and the right one with 0.4. All
    names of friends differ in the first part.
    """
    world, size = text.world, len(text.vocabulary)
    known: dict[tuple[int, ...], torch.Tensor] = {}
    for person in range(len(world.subjects)):
        name = world.subjects[person].tolist()
        for relation in range(FRIEND):
            prefix = tuple(question(text, name, relation))
            (known[prefix],) = (
                certain(size, t) for t in world.objects[relation][world.facts[person, relation]].tolist()
            )
        friend = int(world.facts[person, FRIEND])
        decoy = next(
            other
            for other in range(len(world.subjects))
            if all(world.facts[other, one] != world.facts[friend, one] for one in range(FRIEND))
            and world.subjects[other, 0] != world.subjects[friend, 0]
        )
        start = tuple(question(text, name, FRIEND))
        first = torch.full((size,), -1000.0)
        first[world.subjects[decoy, 0]], first[world.subjects[friend, 0]] = log(0.6), log(0.4)
        known[start] = first
        for one in (decoy, friend):
            a, b, c = world.subjects[one].tolist()
            known |= {(*start, a): certain(size, b), (*start, a, b): certain(size, c)}
    return Lookup(size, lambda prefix: known.get(prefix, torch.zeros(size)))


def test_constraints_find_the_friend_that_a_greedy_chain_misses(text):
    found = searched(doubting(text), text)
    assert found["two_hop"]["sampled_1"] == found["two_hop"]["sampled_64"] == found["two_hop"]["with_truth"] == 0
    constrained = found["constrained"]
    assert constrained["sampled_1"] == 0 and constrained["sampled_64"] == constrained["evolved_64"] == 1
    assert constrained["sampled_4"] == pytest.approx(1 - 0.6**3, abs=0.12)  # the first of four is greedy
    assert constrained["evolved_4"] == pytest.approx(0.4, abs=0.12)  # one is drawn; children keep a first token


def test_a_name_that_no_draw_gives_is_bred_from_two(text):
    """The model never proposes a friend's name, but each of its halves; it knows what is true of the friend."""
    world, size = text.world, len(text.vocabulary)
    facts = unnamed(text)
    search = Search(small_model(text, steps=1), text, facts, 2)
    truth = world.subjects[world.facts[facts[:, 0], FRIEND]]
    assert torch.equal(search.truth, truth)
    other = torch.randint(2, size, truth.shape, generator=seeded(1))
    halves = torch.stack(
        [torch.cat([truth[:, :1], other[:, 1:]], 1), torch.cat([other[:, :1], truth[:, 1:]], 1)], dim=1
    )
    children = torch.stack([search.child(halves) for _ in range(200)], dim=1)
    share = (children == truth[:, None]).all(dim=2).double().mean()
    assert float(share) == pytest.approx(0.5 * 0.25 * 0.5, abs=0.01)  # bred, of this pair in this order, cut at one


def test_children_are_first_tokens_of_one_and_the_rest_of_another_or_free(text):
    search = Search(small_model(text, steps=1), text, unnamed(text)[:50], 0)
    parents = torch.arange(2, 2 + 50 * 4 * 3).view(50, 4, 3)
    free = 0
    for _ in range(20):
        for number, name in enumerate(search.child(parents).tolist()):
            rows = parents[number].tolist()
            wholes = [one[:cut] + rest[cut:] for one in rows for rest in [*rows, [0] * 3] for cut in (1, 2)]
            assert name in wholes
            free += name[-1] == 0
    assert free / 1000 == pytest.approx(0.5, abs=0.05)


def test_the_best_names_are_distinct_while_there_are_others():
    names = torch.randint(1, 3, (200, 8, 2), generator=seeded(3))
    scores = torch.randn(200, 8, generator=seeded(4))
    best = Candidates(names, scores, scores > 0).best(3)
    for number in range(200):
        firsts: dict[tuple[int, ...], float] = {}
        for name, score in zip(names[number].tolist(), scores[number].tolist(), strict=True):
            firsts.setdefault(tuple(name), score)
        ordered = sorted(firsts, key=firsts.__getitem__, reverse=True)[:3]
        assert [tuple(name) for name in best[number].tolist()][: len(ordered)] == ordered


def test_as_many_candidates_as_it_says_and_draws_by_probability(text):
    model, facts = small_model(text, steps=30), unnamed(text)[:30]
    search = Search(model, text, facts, 1)
    none = torch.zeros(len(facts), 3, dtype=torch.long)
    for count in (4, 16, 64):
        some = search.judged([search.spelt(none) for _ in range(count // 2)])
        evolved = search.evolved(some, count)
        assert evolved.names.shape == (30, count, 3) and GENERATIONS == 4
        assert torch.equal(evolved.names[:, : count // 2], some.names)
    shares = torch.tensor([0.1, 0.2, 0.7])
    drawn = torch.stack([search.drawn(shares.log().expand(1000, 3)) for _ in range(10)])
    assert drawn.flatten().bincount() / 10_000 == pytest.approx(shares, abs=0.02)


def test_a_world_without_friends_has_no_search():
    plain = text_of(BiographiesConfig(name="biographies", **{**WORLD, "two_hop": 0.0}))
    assert searched(Lookup(1, lambda _: torch.zeros(1)), plain) is None
