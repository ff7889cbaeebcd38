"""What one forward pass says about an answer, against greedy decoding of one token after the other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Lookup, oracle, small_model
from stubs import PHRASINGS, seeded, small_world

from memlayers.documents import Documents
from memlayers.facts.world import END, PAD, known_facts
from memlayers.layers import Dense, Memory
from memlayers.recall.ask import ask, decode
from memlayers.text import Text

MEMORY = Memory(num_keys=8, topk=4, d_key=8)


def greedy(model, text: Text, documents: Documents, num_tokens: list[int]) -> tuple[list[list[int]], list[float]]:
    """One question and one token at a time; END ends an answer and nothing follows it."""
    answers, confidence = [], []
    for row, marks, length in zip(documents.tokens.tolist(), documents.answers.tolist(), num_tokens, strict=True):
        told, said, total = row[: marks.index(True)], [], 0.0
        while len(said) < length and (not said or said[-1] != END):
            tokens = torch.tensor([told + said])
            where = torch.zeros_like(tokens, dtype=torch.bool)
            where[0, -1] = True
            chances = model(tokens, where).logits[0].float().softmax(dim=-1).double()
            said.append(int(chances.argmax()))
            total += math.log(float(chances.max()))
        answers.append(said)
        confidence.append(total)
    return answers, confidence


def gold(text: Text, documents: Documents) -> list[list[int]]:
    rows = zip(documents.tokens.tolist(), documents.answers.tolist(), strict=True)
    return [[token for token, mark in zip(row, marks, strict=True) if mark] for row, marks in rows]


@pytest.mark.parametrize("steps", [0, 15, 60])
@pytest.mark.parametrize(("kind", "layer"), [("triples", Dense()), ("triples", MEMORY), ("readings", Dense())])
def test_one_forward_pass_decides_what_greedy_decoding_would_say(kind, layer, steps):
    text = Text(small_world(kind), "prose")
    model, facts = small_model(text, steps, layer), known_facts(text.world)
    for phrasing in PHRASINGS:
        answers = ask(model, text, facts, phrasing)
        probe = text.probe(facts, phrasing, seeded())  # the same questions: their order is fixed
        true = gold(text, probe.documents)
        with torch.no_grad():
            said, confidence = greedy(model, text, probe.documents, [len(answer) for answer in true])
            tokens, log_probability = decode(model, probe.documents, torch.tensor([len(answer) for answer in true]))
        assert answers.exact.tolist() == [own == other for own, other in zip(said, true, strict=True)]
        assert [row[: len(one)] for row, one in zip(tokens.tolist(), said, strict=True)] == said
        assert log_probability.tolist() == pytest.approx(confidence, abs=1e-3)
        if steps == 0:
            assert not answers.exact.all()
    if steps == 60 and kind == "triples":
        assert 0.04 < answers.exact.double().mean() < 1, "some right and some wrong, or nothing was compared"


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), luck=st.floats(0, 4), phrasing=st.sampled_from(PHRASINGS))
def test_any_model_is_right_exactly_when_its_greedy_answer_is(seed, luck, phrasing):
    """Random scores of what comes next, with some luck for the truth."""
    text = Text(small_world("triples"), "prose")
    right, size = oracle(text), len(text.vocabulary)

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(size, generator=seeded(hash((seed, prefix)) % 2**31))
        return noise + luck * (right.say(prefix) > 0)

    facts = known_facts(text.world)[:: 1 + seed % 3]
    answers = ask(Lookup(size, say), text, facts, phrasing)
    probe = text.probe(facts, phrasing, seeded())
    true = gold(text, probe.documents)
    model = Lookup(size, say)
    said, confidence = greedy(model, text, probe.documents, [len(answer) for answer in true])
    assert answers.exact.tolist() == [own == other for own, other in zip(said, true, strict=True)]
    tokens, log_probability = decode(model, probe.documents, torch.tensor([len(answer) for answer in true]))
    assert [row[: len(one)] for row, one in zip(tokens.tolist(), said, strict=True)] == said
    assert all(not any(row[len(one) :]) for row, one in zip(tokens.tolist(), said, strict=True))
    assert log_probability.tolist() == pytest.approx(confidence, abs=1e-4)
    hits = answers.exact
    torch.testing.assert_close(-answers.surprise[hits] * math.log(2), log_probability[hits], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_an_answer_stops_at_its_length_or_at_end(longest):
    """The model counts 2, 3, 4, END; after END or the length nothing is said and nothing is added to the confidence."""
    chain, size = [2, 3, 4, END, 2, 3], 8

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        logits = torch.full((size,), -1000.0)
        logits[chain[len(prefix) - 2]], logits[7] = math.log(0.5), math.log(0.25)
        logits[6] = math.log(0.25)
        return logits

    tokens = torch.tensor([[5, 5, 6, 6, 6], [5, 5, 6, 0, 0]])
    documents = Documents(tokens, torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]).bool(), tokens > 9)
    model = Lookup(size, say)
    said, confidence = decode(model, documents, torch.tensor([longest, 2]))
    wanted = [2, 3, 4, END][:longest]
    width = max(longest, 2)
    assert said.tolist() == [(wanted + [PAD] * width)[:width], ([2, 3] + [PAD] * width)[:width]]
    assert confidence.tolist() == pytest.approx([len(wanted) * math.log(0.5), 2 * math.log(0.5)], rel=1e-5)
    assert all(6 not in prefix for call in model.asked for prefix in call), "what the document says is not looked at"
