"""The read-outs of a record: models that know everything or nothing, and counting over all pairs and thresholds."""

import json
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import Lookup, answers_of, certain, oracle, small_model
from stubs import WRITINGS, ids_of, sentences, small_world, spelt

from memlayers.facts.world import known_facts
from memlayers.layers import Memory
from memlayers.recall import measure as module
from memlayers.recall.ask import Answers, majority_share, prior_bits, sample_facts, shuffled
from memlayers.recall.measure import by_exposures, measure
from memlayers.recall.usage import tables
from memlayers.text import Text


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
    assert found["unknown"].pop("auroc_by_tokens") < 1
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
    del found["unknown"]["auroc_by_tokens"]
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


def test_what_tables_are_used_for_is_told_of_a_model_that_has_any():
    text = Text(small_world("biographies"), "terse")
    found = measure(oracle(text), text, 1_000)
    assert found["tables"] is None
    model = small_model(text, 60, Memory(num_keys=16, heads=2, topk=4, d_key=8))
    found = measure(model, text, 1_000)
    json.dumps(found, allow_nan=False)
    assert found["tables"] == tables(model, text, sample_facts(text.world, 10_000))
    assert set(found["tables"]) == {"without", "usage"} and list(found["tables"]["usage"]) == ["1.ffn"]


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
