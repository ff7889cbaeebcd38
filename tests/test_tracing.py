"""What a trace says is what the model reads; forgetting and editing touch the rows of one question and no others."""

import subprocess
import sys

import pytest
import torch
from commands import GATED, one
from test_trained import WORDS, one_line

import memlayers
from memlayers import tracing
from memlayers.facts.world import PAD, known_facts
from memlayers.recall.ask import ask
from memlayers.training.record import model_path
from memlayers.training.run import run

SURE = "rates.arm=null optim.lr=2e-3 optim.roles.vector.lr_mul=30 optim.values.lr=60"  # with which it is sure
KINDS = ["ffn=memory", "ffn=ngram", f"{GATED} {SURE}", "arm=bigram"]  # the last: one table, read by every block


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    config = one(*WORDS, *request.param.split(), f"results={tmp_path_factory.mktemp('traced')}")
    run(config)
    found = memlayers.load(model_path(config))
    found.config.results = config.results
    return found


def reads_by_hand(model, fact) -> dict[tuple[str, int], float]:
    """(place, slot) -> weight at the last token of the question, from a batch of one without padding."""
    subject = [token for token in model.text.subjects[fact[0]].tolist() if token != PAD]
    relation = model.text.vocabulary.index(f"[{model.text.world.relations[fact[1]]}]")
    found: dict[tuple[str, int], float] = {}
    with torch.no_grad():
        for place, reads in model.model(torch.tensor([[*subject, relation]])).reads.items():
            for slot, weight in zip(reads.slots[0, -1].tolist(), reads.weights[0, -1].tolist(), strict=True):
                found[place, slot] = found.get((place, slot), 0.0) + weight
    return found


def test_a_trace_has_every_slot_with_its_weight_and_its_other_readers(model):
    world, names = model.text.world, list(model.subjects)
    fact = (5, world.relations.index("country"))
    traced = tracing.trace(model, names[5], "country", most=1)
    by_hand = reads_by_hand(model, fact)
    assert {(one.place, one.slot) for one in traced} == by_hand.keys()
    others = {
        tuple(other): reads_by_hand(model, other) for other in known_facts(world).tolist() if tuple(other) != fact
    }
    for one_read in traced:
        key = (one_read.place, one_read.slot)
        assert one_read.weight == pytest.approx(by_hand[key], abs=1e-5)
        readers = {other: reads[key] for other, reads in others.items() if reads.get(key, 0.0) > 0}
        assert one_read.readers == len(readers)
        if readers:
            told = {f"{names[s]} {world.relations[r]}": weight for (s, r), weight in readers.items()}
            assert told[one_read.known_to[0]] == pytest.approx(max(told.values()), abs=1e-5)
    assert [abs(read.weight) for read in traced] == sorted((abs(read.weight) for read in traced), reverse=True)


def test_forgetting_zeroes_the_slots_of_one_question_in_a_copy(model):
    fact = (5, 0)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    slots = {slot for _, slot in reads_by_hand(model, fact)}
    changed = tracing.copied(model)
    assert tracing.forget(changed, fact) == len(reads_by_hand(model, fact))
    for pool, old in zip(changed.model.tables(), model.model.tables(), strict=True):
        rows = (pool.values != old.values).any(dim=1).nonzero()[:, 0].tolist()
        assert set(rows) <= slots and (pool.values[rows] == 0).all()
    assert model.ask(*question(model, fact)).truth == changed.ask(*question(model, fact)).truth
    assert all(value.equal(before[name]) for name, value in model.model.state_dict().items())


def question(model, fact) -> tuple[str, str]:
    return list(model.subjects)[fact[0]], model.text.world.relations[fact[1]]


def test_a_fact_that_is_written_is_answered_and_only_rows_that_it_reads_have_moved(model):
    for relation in ("country", "icao"):  # one token, and four
        fact = (7, model.text.world.relations.index(relation))
        another = (int(model.text.world.facts[fact]) + 1) % len(model.objects[fact[1]])
        changed = tracing.copied(model)
        probability = tracing.write(changed, fact, another)
        reply = changed.ask(*question(model, fact), 1)
        assert reply.objects == (model.objects[fact[1]][another],)
        assert reply.probabilities[0] == pytest.approx(probability) and probability > 0.5
        moved = 0
        for pool, old in zip(changed.model.tables(), model.model.tables(), strict=True):
            moved += int((pool.values != old.values).any(dim=1).sum())
        assert 0 < moved <= 4 * len(reads_by_hand(model, fact)) * (4 if relation == "icao" else 1)


def test_the_first_step_of_writing_moves_a_row_by_its_rate_whoever_reads_it(model):
    changed = tracing.copied(model)
    tracing.write(changed, (7, 0), (int(model.text.world.facts[7, 0]) + 1) % len(model.objects[0]), steps=1, lr=0.1)
    moves = [
        (pool.values - old.values).norm(dim=1).max().item()
        for pool, old in zip(changed.model.tables(), model.model.tables(), strict=True)
    ]
    assert max(moves) == pytest.approx(0.1, rel=1e-3)


def test_what_is_lost_is_counted_as_asking_finds_it(model):
    facts = known_facts(model.text.world)
    before = ask(model.model, model.text, facts, "training").exact
    fact = tuple(facts[before][0].tolist())
    changed = tracing.copied(model)
    for pool in changed.model.tables():
        pool.values.data.zero_()
    after = ask(changed.model, model.text, facts, "training").exact
    gone, share = tracing.collateral(before, changed, facts, fact)
    mine = (facts == torch.tensor(fact)).all(dim=1)
    assert gone == bool(before[mine] & ~after[mine])
    assert share == pytest.approx(float((before & ~after & ~mine).sum() / (before & ~mine).sum()))


def test_a_model_without_tables_has_nothing_to_trace(tmp_path):
    config = one(*WORDS, "arm=dense", f"results={tmp_path}")
    run(config)
    dense = memlayers.load(model_path(config))
    assert one_line(lambda: tracing.trace(dense, next(iter(dense.subjects)), "country")).startswith(
        "arm dense reads no ta"
    )
    command = [sys.executable, "scripts/trace.py", str(model_path(config)), next(iter(dense.subjects)), "country"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("memlayers: arm dense reads no table")


@pytest.mark.slow
def test_trace_prints_draws_and_measures(model, tmp_path):
    path, name = model_path(model.config), next(iter(model.subjects))
    done = [
        subprocess.run([sys.executable, "scripts/trace.py", str(path), *words], capture_output=True, text=True)
        for words in ([name, "country", "--figure", str(tmp_path / "f.png")], ["--measure", "3"])
    ]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    slots = len(tracing.trace(model, name, "country"))
    assert len(done[0].stdout.splitlines()) == 1 + slots + 2, "a line a slot, whatever the width of the terminal"
    assert "as it is: " in done[0].stdout and (tmp_path / "f.png").stat().st_size > 5_000
    assert '"facts": 3' in done[1].stdout
