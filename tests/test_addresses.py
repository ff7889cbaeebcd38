"""What reads share: counted by hand, and in models whose addresses are known."""

import pytest
import torch
from contract import SMALL, drawn
from stubs import seeded, small_world

from memlayers.config import ModelConfig
from memlayers.facts.world import known_facts
from memlayers.layers import Dense, NGram
from memlayers.layers.feedforward import Reads
from memlayers.model import build_model
from memlayers.recall.addresses import MOST, addresses, name_ends, shared
from memlayers.text import Text


@pytest.fixture(params=["biographies", "airports", "triples"])
def text(request) -> Text:
    return Text(small_world(request.param), "prose")


def build(text: Text, **layers):
    config = ModelConfig(**{"ffn": Dense()} | layers, d_model=16, hidden=24)
    return drawn(build_model(config, len(text.vocabulary), seeded()))


def test_shares_are_those_counted_by_hand():
    left = Reads(torch.tensor([[1, 2, 2, 5], [7, 7, 7, 7]]), torch.tensor([[0.4, 0.2, 0.2, 0.2], [1.0, 1, 1, 1]]))
    right = Reads(torch.tensor([[2, 1, 9, 9], [3, 3, 3, 3]]), torch.tensor([[0.1, 0.5, 0.2, 0.2], [1.0, 1, 1, 1]]))
    found = shared(left, right)
    assert found["slots"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["weight"] == pytest.approx((0.4 + 0.1 + 0) / 2)
    assert shared(left, left) == {"slots": 1, "weight": pytest.approx(1)}


def test_a_table_of_single_tokens_shares_what_tokens_do(text):
    """A row for each token: at the name, two phrasings read the same one, and two subjects that of their own names."""
    found = addresses(build(text, residual=NGram(1, None, 1)), text, known_facts(text.world))
    assert found is not None and list(found) == ["0.residual", "1.residual"]
    for places in found.values():
        assert list(places) == ["at_name", "at_answer"]
        assert places["at_name"]["held_out"] == {"slots": 1, "weight": 1}
        assert places["at_name"]["relation"] == {"slots": 1, "weight": 1}
        assert places["at_name"]["subject"]["slots"] < 0.8  # a few last names for all


def test_shares_are_those_of_each_question_asked_alone(text):
    """Without padding and other rows; the place of the name is found in words."""
    model, facts = build(text, ffn=SMALL, blocks="all"), known_facts(text.world)[:40]
    assert len(facts) <= MOST
    found = addresses(model, text, facts)
    asked = facts[text.layouts["held_out"].count[facts[:, 1]] > 0]
    asked = asked[torch.randperm(len(asked), generator=seeded(3))]
    rows = {kind: text.probe(asked, kind, seeded(0)).documents for kind in ("training", "held_out")}
    names = [[token for token in row if token] for row in text.subjects[asked[:, 0]].tolist()]
    for layer in ("0.ffn", "1.ffn"):
        for place in ("at_name", "at_answer"):
            total = 0.0
            for index, name in enumerate(names):
                weights = []
                for documents in rows.values():
                    tokens = documents.tokens[index].tolist()
                    at = documents.answers[index].tolist().index(True) - 1
                    if place == "at_name":
                        starts = [s for s in range(len(tokens)) if tokens[s : s + len(name)] == name]
                        at = starts[0] + len(name) - 1
                    reads = model.eval()(torch.tensor([tokens[: at + 1]])).reads[layer]
                    dense = torch.zeros(64, dtype=torch.float64)
                    dense.index_add_(0, reads.slots[0, at].flatten(), reads.weights[0, at].double().flatten())
                    weights.append(dense / dense.sum())
                total += float(torch.minimum(*weights).detach().sum())
            assert found[layer][place]["held_out"]["weight"] == pytest.approx(total / len(names), abs=1e-4)


def test_the_name_ends_where_its_last_token_stands(text):
    probe = text.probe(known_facts(text.world), "training", seeded())
    ends = name_ends(probe)
    last = torch.tensor([[token for token in row if token][-1] for row in text.subjects[probe.subject].tolist()])
    assert probe.documents.tokens[torch.arange(len(ends)), ends].equal(last)
    assert (ends < probe.documents.answers.long().argmax(dim=1)).all()


def test_there_is_nothing_to_compare_without_tables_or_held_out_sentences(text):
    facts = known_facts(text.world)
    assert addresses(build(text), text, facts) is None
    terse = Text(text.world, "terse")
    assert addresses(build(terse, ffn=SMALL, blocks="all"), terse, facts) is None
