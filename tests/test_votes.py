"""Votes over phrasings: against loops, and in texts whose templates are known."""

from collections import defaultdict

import pytest
import torch
from stubs import seeded, small_world

from memlayers.config import ModelConfig
from memlayers.facts.world import known_facts
from memlayers.layers import Dense
from memlayers.model import build_model
from memlayers.recall.ask import gold
from memlayers.recall.votes import elected, votes
from memlayers.text import Text


def test_the_answer_with_most_probability_in_all_is_elected():
    answer = torch.randint(1, 4, (500, 5, 2), generator=seeded(1))
    answer[:, :, 1] = answer[:, :, 1].clamp(max=2)
    share = torch.rand(500, 5, generator=seeded(2))
    gold = torch.tensor([2, 1])
    found = elected(answer, share, (answer == gold).all(dim=2))
    for fact in range(500):
        total: dict[tuple[int, ...], float] = defaultdict(float)
        for one, weight in zip(answer[fact].tolist(), share[fact].tolist(), strict=True):
            total[tuple(one)] += weight
        assert bool(found[fact]) == (max(total, key=lambda one: total[one]) == (2, 1))
    assert 0.05 < found.double().mean() < 0.95


@pytest.fixture
def text() -> Text:
    return Text(small_world("biographies"), "prose")


def test_no_fact_is_asked_twice_in_one_template_and_one_vote_is_the_answer(text, monkeypatch):
    model = build_model(ModelConfig(ffn=Dense(), d_model=16, hidden=24), len(text.vocabulary), seeded())
    facts, asked = known_facts(text.world), []

    def decoded(model, documents, lengths):
        """Right in every phrasing but the first, and surest there."""
        number = len(asked)
        asked.append([tuple(row) for row in documents.tokens.tolist()])
        order = torch.randperm(len(facts), generator=seeded(5))
        right = gold(text, facts[order], int(lengths.max()))
        share = torch.full((len(facts),), 0.9 if number == 0 else 0.4)
        return (right * 0 if number == 0 else right), share.log()

    monkeypatch.setattr("memlayers.recall.votes.decode", decoded)
    found = votes(model, text, facts)
    assert len(asked) == 8 and all(len({rows[fact] for rows in asked}) == 8 for fact in range(len(facts)))
    assert found == {"1": 0.0, "2": 0.0, "4": 1.0, "8": 1.0}  # 0.9 against 0.4, then against three times that


def test_as_many_phrasings_as_every_relation_has(text):
    model = build_model(ModelConfig(ffn=Dense(), d_model=16, hidden=24), len(text.vocabulary), seeded())
    facts = known_facts(text.world)
    text.layouts["held_out"].count[0] = 3
    found = votes(model, text, facts)
    assert found is not None and set(found) == {"1", "2"}
    text.layouts["held_out"].count[0] = 1
    assert votes(model, text, facts) is None
    assert votes(model, Text(text.world, "terse"), facts) is None
