"""A search for a friend: its scores against loops over tokens, its operators, and models whose answers are known."""

from collections import Counter
from functools import cache
from math import log

import pytest
import torch
from oracles import Lookup, certain, small_model
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.recall.search import Candidates, Search, searched
from memlayers.studies.frame import SEARCHES
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
    search = Search(model, text, facts)
    none = torch.zeros(len(facts), 3, dtype=torch.long)
    found = search.judged([search.spelt(none, greedy=True), search.spelt(none)], search.told(constraints))
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
    assert 0.4 - 0.12 < constrained["evolved_4"] < 0.4 + 0.6 * 0.5 * 0.4 + 0.12  # one is drawn; few children are


def halving(text: Text) -> Lookup:
    """Knows all facts, but of a friend it says a name that begins or ends as the friend's does, as often, never the
    friend's own. A name of which it proposed the parts it takes to be possible.
    """
    world, size = text.world, len(text.vocabulary)
    known: dict[tuple[int, ...], torch.Tensor] = {}
    unlikely = torch.full((size,), -6.0)
    wrong = world.unknown[0].tolist()
    for person, name in enumerate(world.subjects.tolist()):
        for relation in range(FRIEND):
            prefix = tuple(question(text, name, relation))
            (known[prefix],) = (
                certain(size, t) for t in world.objects[relation][world.facts[person, relation]].tolist()
            )
        start = tuple(question(text, name, FRIEND))
        first, middle, last = world.subjects[world.facts[person, FRIEND]].tolist()
        for prefix, likely in (((), (first, wrong[0])), ((first,), (middle,)), ((wrong[0],), (wrong[1],))):
            known[(*start, *prefix)] = unlikely.index_fill(0, torch.tensor(likely), 6.0)
        known[(*start, first, middle)] = certain(size, wrong[2]).clamp(max=8.0)
        known[(*start, wrong[0], wrong[1])] = certain(size, last).clamp(max=8.0)
    return Lookup(size, lambda prefix: known.get(prefix, torch.zeros(size)))


def test_a_name_that_no_draw_gives_is_joined_from_two_that_score_best(text):
    """The friend is drawn as first middle WRONG, and as WRONG WRONG last; facts tell the right name from both."""
    found = searched(halving(text), text)["constrained"]
    assert found["sampled_64"] < 0.1 and found["with_truth"] > 0.9
    assert found["evolved_64"] > 0.5


def children_of(search: Search, parents: torch.Tensor, there: torch.Tensor, times: int) -> list[list[list[int]]]:
    return [search.child(parents, there).tolist() for _ in range(times)]


def test_children_are_new_and_first_tokens_of_one_and_the_rest_of_another_or_free(text):
    search = Search(small_model(text, steps=1), text, unnamed(text)[:50])
    parents = torch.arange(2, 2 + 50 * 4 * 3).view(50, 4, 3)
    kinds = Counter()
    for children in children_of(search, parents, parents, 20):
        for number, child in enumerate(children):
            rows = parents[number].tolist()
            joined = [one[:cut] + rest[cut:] for one in rows for rest in rows if rest != one for cut in (1, 2)]
            free = [one[:cut] + [0] * (3 - cut) for one in rows for cut in (0, 1, 2)]
            assert child in joined or child in free
            kinds["joined" if child in joined else f"free {child.count(0)}"] += 1
    assert kinds["joined"] / 1000 == pytest.approx(0.5, abs=0.06)
    assert all(kinds[f"free {count}"] / 1000 == pytest.approx(0.5 / 3, abs=0.05) for count in (1, 2, 3))


@pytest.mark.parametrize("length", [1, 3])
def test_what_is_there_is_not_bred_again(text, length):
    """All that two parents can be joined to is there, and of names of one part nothing can be joined."""
    search = Search(small_model(text, steps=1), text, unnamed(text)[:40])
    one, other = torch.randint(2, 90, (2, 40, length), generator=seeded(2))
    there = [
        torch.where(torch.arange(length) < cut, a, b) for a in (one, other) for b in (one, other) for cut in (1, 2)
    ]
    children = children_of(search, torch.stack([one, other], dim=1), torch.stack(there, dim=1), 20)
    free = [0 in child for generation in children for child in generation]
    assert sum(free) / len(free) == pytest.approx(1 - 0.5**4, abs=0.03)  # the share of four tries of which one is free


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


def test_as_many_candidates_as_it_says_in_few_generations(text, monkeypatch):
    search = Search(small_model(text, steps=30), text, unnamed(text)[:30])
    told, none, parents = search.told(1), torch.zeros_like(search.truth), []
    best = Candidates.best
    monkeypatch.setattr(Candidates, "best", lambda self, count: parents.append(count) or best(self, count))
    for count, numbers in ((4, [2, 3]), (16, [4] * 4), (64, [8] * 4)):
        some = search.judged([search.spelt(none) for _ in range(count // 2)], told)
        evolved = search.evolved(some, count, told)
        assert evolved.names.shape == (30, count, 3) and torch.equal(evolved.names[:, : count // 2], some.names)
        assert parents == numbers
        parents.clear()


def test_names_are_drawn_by_probability_and_never_padding_or_end(text):
    size, facts = len(text.vocabulary), unnamed(text)[:1].repeat(2_000, 1)
    shares = torch.full((size,), -1000.0)
    shares[torch.tensor([0, 1, 5, 6])] = torch.tensor([0.4, 0.3, 0.1, 0.2]).log()
    names, score = Search(Lookup(size, lambda _: shares), text, facts).spelt(torch.zeros(2_000, 3, dtype=torch.long))
    assert set(names.unique().tolist()) == {5, 6} and (names == 6).double().mean() == pytest.approx(2 / 3, abs=0.02)
    sixes = (names == 6).sum(dim=1)
    assert score.tolist() == pytest.approx((sixes * log(0.2) + (3 - sixes) * log(0.1)).tolist(), abs=1e-4)


def test_every_share_is_a_readout_of_tables(text):
    found = searched(small_model(text, steps=1), text)
    assert {f"recall.searched.{kind}.{name}" for kind in found for name in found[kind]} == set(SEARCHES.values())


def test_a_world_without_friends_has_no_search():
    plain = text_of(BiographiesConfig(name="biographies", **{**WORLD, "two_hop": 0.0}))
    assert searched(Lookup(1, lambda _: torch.zeros(1)), plain) is None
