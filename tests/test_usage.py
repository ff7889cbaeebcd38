"""What tables are used for: reads counted one by one, divergences in closed form, and models without their tables."""

import copy
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from contract import CASES, QUESTIONS, SMALL, drawn, site
from hypothesis import given
from hypothesis import strategies as st
from oracles import small_model
from stubs import seeded, small_world

from memlayers.config import ModelConfig
from memlayers.facts.world import known_facts
from memlayers.layers import Dense, Engram, NGram, Oracle, Stem
from memlayers.model import Transformer, build_model
from memlayers.recall import usage as module
from memlayers.recall.ask import ask
from memlayers.recall.usage import read_weights, silent, tables, usage_of
from memlayers.text import Text

MODELS = {
    "memory": {"ffn": SMALL, "blocks": "all"},
    "shared": {"ffn": CASES["Memory shared gate"], "blocks": "all", "placement": "add"},
    "elsewhere": {"residual": NGram(2, 50, 2), "values": NGram(1, None, 1), "extra_blocks": [1]},
    "engram": {"residual": Engram([2, 3], hashes=2, num_slots=40), "before": NGram(3, 20, 1)},
    "oracle": {"ffn": Oracle()},
    "rows": {"ffn": Stem(), "residual": CASES["Peer own"]},  # that are not just added up
    "looped": {"ffn": SMALL, "residual": NGram(2, 50, 2), "loops": 2},
    "below zero": {"ffn": CASES["UltraMemV2 shared"], "blocks": "all", "placement": "add"},  # half of the weights
}


@pytest.fixture(params=[("biographies", "terse"), ("triples", "prose")], ids=" ".join)
def text(request) -> Text:
    """Documents of different lengths, so that there is padding."""
    return Text(small_world(request.param[0]), request.param[1])


def build(text: Text, name: str) -> Transformer:
    questions = text.questions() if text.questions() is not None else QUESTIONS
    config = ModelConfig(**{"ffn": Dense()} | MODELS[name], d_model=16, hidden=24)
    return drawn(build_model(config, len(text.vocabulary), seeded(), questions=questions)).train()


def counted(model: Transformer, text: Text, facts: torch.Tensor) -> dict[str, Counter[int]]:
    """The same, from every document alone and without padding, one read after the other."""
    found: dict[str, Counter[int]] = {}
    for row in text.probe(facts, "training", seeded()).documents.tokens.tolist():
        tokens = torch.tensor([[token for token in row if token][:-1]])  # the last position predicts nothing
        for place, reads in model(tokens).reads.items():
            count = found.setdefault(place, Counter())
            for slots, weights in zip(reads.slots[0].tolist(), reads.weights[0].tolist(), strict=True):
                for slot, weight in zip(slots, weights, strict=True):
                    count[slot] += abs(weight)
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [7, 2048])
def test_weights_are_those_of_all_reads_without_those_of_padding(text, name, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    model, facts = build(text, name), known_facts(text.world)[::3]
    found, wanted = read_weights(model, text, facts), counted(model, text, facts)
    assert list(found) == list(wanted) and wanted
    for place, weights in found.items():
        loops = torch.tensor([wanted[place][slot] for slot in range(len(weights))], dtype=torch.float64)
        torch.testing.assert_close(weights, loops, rtol=1e-5, atol=1e-5)
    assert model.training
    assert read_weights(model, text, facts[:0]) == {}


@pytest.mark.parametrize(("name", "sizes"), [("memory", [25, 25]), ("engram", [160, 20, 20, 160, 20, 20])])
def test_slots_are_those_of_the_pool_that_is_read(text, name, sizes):
    found = read_weights(build(text, name), text, known_facts(text.world)[:5])
    assert [len(weights) for weights in found.values()] == sizes


# --------------------------------------------------------------------------- read-outs of weights


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_divergence_is_nothing_for_even_weights_and_log_n_for_a_single_slot(size):
    even, single = torch.full((size,), 0.3).double(), torch.zeros(size).double()
    single[size // 2] = 12.5
    assert usage_of(even) == pytest.approx({"slots": size, "used": 1.0, "kl": 0.0}, abs=1e-9)
    assert usage_of(single) == pytest.approx({"slots": size, "used": 1 / size, "kl": math.log(size)})
    half = torch.cat([even, torch.zeros_like(even)])
    assert usage_of(half) == pytest.approx({"slots": 2 * size, "used": 0.5, "kl": math.log(2)})


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20).filter(lambda weights: sum(weights) > 1e-3))
def test_divergence_is_that_of_a_sum_over_slots_and_does_not_see_the_scale(weights):
    total = sum(weights)
    wanted = sum(one / total * math.log(one / total * len(weights)) for one in weights if one / total > 0)
    found = usage_of(torch.tensor(weights, dtype=torch.float64))
    assert found["kl"] == pytest.approx(wanted, abs=1e-9) and 0 <= found["kl"] <= math.log(len(weights)) + 1e-9
    assert found["used"] == sum(one > 0 for one in weights) / len(weights)
    assert usage_of(7 * torch.tensor(weights, dtype=torch.float64))["kl"] == pytest.approx(wanted, abs=1e-9)


def test_a_table_that_was_never_read_is_not_used():
    assert usage_of(torch.zeros(5).double())["used"] == 0


# --------------------------------------------------------------------------- without tables


@pytest.mark.parametrize("case", [case for case, one in CASES.items() if hasattr(one, "pool")])
def test_silent_tables_read_zero_and_speak_again_even_after_an_error(case):
    layer = drawn(CASES[case].build(site()))
    model = SimpleNamespace(tables=lambda: [layer.pool])
    asked = torch.tensor([[1, 2], [0, 1]]), torch.rand(2, 2)
    before, rows = layer.pool(*asked), layer.pool.rows(asked[0])
    with silent(model):
        for silent_read, spoken in ((layer.pool(*asked), before), (layer.pool.rows(asked[0]), rows)):
            assert not silent_read.any() and silent_read.shape == spoken.shape
    assert layer.pool.rows(asked[0]).equal(rows) and layer.pool(*asked).equal(before)
    with pytest.raises(KeyError), silent(model):
        raise KeyError
    assert layer.pool.rows(asked[0]).equal(rows) and layer.pool(*asked).equal(before)


@pytest.mark.parametrize("name", MODELS)
def test_recall_without_tables_is_that_of_a_model_whose_values_are_zero(text, name):
    model, facts = build(text, name), known_facts(text.world)
    zeroed = copy.deepcopy(model)
    for pool in zeroed.tables():
        pool.values.data.zero_()
    wanted, own = (ask(one, text, facts, "training").surprise for one in (zeroed, model))
    with silent(model):
        torch.testing.assert_close(ask(model, text, facts, "training").surprise, wanted)
    assert not own.allclose(wanted)


def test_some_of_what_a_model_knows_is_gone_without_its_table_and_usage_is_told_of_each_place():
    text = Text(small_world("biographies"), "terse")
    facts = known_facts(text.world)
    model = small_model(text, 150, NGram(5, 4096, 1))
    found = tables(model, text, facts)
    known = ask(model, text, facts, "training").exact.double().mean()
    with silent(model):
        without = ask(model, text, facts, "training").exact.double().mean()
    assert known > found["without"] + 0.2 and found["without"] == pytest.approx(float(without))
    (weights,) = read_weights(model, text, facts).values()
    assert found["usage"] == {"1.ffn": usage_of(weights)} and found["usage"]["1.ffn"]["slots"] == 4096
    assert tables(small_model(text, 0), text, facts) is None
