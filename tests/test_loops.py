"""Blocks that are passed several times: a deeper model whose blocks are copies, at its cost, of fewer parameters."""

import copy
import dataclasses

import naive
import pytest
import torch
from commands import one, small
from contract import CASES, FIRST, SMALL, TABLES, build, drawn, random_tokens, site, twin

import memlayers
from memlayers.config import MatchConfig, ModelConfig
from memlayers.config.digest import decisive, digest
from memlayers.cost import model_cost, solve
from memlayers.facts.world import known_facts
from memlayers.layers import Dense
from memlayers.layers.feedforward import Workload
from memlayers.model import Transformer
from memlayers.tracing import scores_of, slots_of, trace
from memlayers.training.plan import plan
from memlayers.training.run import run

WORK = Workload(sequence=4.0, scored=2.0, tokens=1024)


def unrolled(model: Transformer) -> Transformer:
    """Each pass with blocks, and tables, of its own."""
    deep = copy.deepcopy(model)
    blocks = [copy.deepcopy(block) for _ in range(model.loops) for block in model.blocks]
    deep.blocks, deep.loops = torch.nn.ModuleList(blocks), 1
    return deep


@pytest.mark.parametrize("case", FIRST)
@pytest.mark.parametrize("loops", [2, 3])
def test_it_is_a_deeper_model_of_copies_whose_gradients_add_up(case, loops):
    model, tokens = drawn(build(CASES[case], loops=loops)), random_tokens(2, 4)
    deep, weight = unrolled(model), torch.randn(8, 11)
    assert model(tokens).logits.equal(deep(tokens).logits)
    for one_model in (model, deep):
        (one_model(tokens).logits * weight).sum().backward()
    for name, parameter in model.blocks.named_parameters():
        if parameter.grad is None:  # fixed, or a norm before a layer that looks at tokens alone
            continue
        index, _, rest = name.partition(".")
        parts = [dict(block.named_parameters())[rest].grad.to_dense() for block in deep.blocks[int(index) :: 2]]
        assert len(parts) == loops
        torch.testing.assert_close(parameter.grad.to_dense(), sum(parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", FIRST)
def test_logits_equal_those_of_the_twin(case):
    model, tokens = drawn(build(CASES[case], loops=2)), random_tokens(2, 4)
    with torch.no_grad():
        got, wanted = model(tokens).logits.unflatten(0, (2, 4)), naive.transformer(model, tokens, twin)
        once = copy.deepcopy(model)
        once.loops = 1
        assert not once(tokens).logits.unflatten(0, (2, 4)).allclose(got, atol=1e-2)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", [case for case in FIRST if case in TABLES])
def test_each_pass_has_reads_of_its_own(case):
    model, tokens = drawn(build(CASES[case], loops=2)), random_tokens(2, 4)
    found, wanted = model(tokens).reads, unrolled(model)(tokens).reads
    assert list(found) == ["0.ffn", "1.ffn", "0.ffn.2", "1.ffn.2"] and len(wanted) == 4
    for own, other in zip(found.values(), wanted.values(), strict=True):
        assert own.slots.equal(other.slots) and own.weights.equal(other.weights)


@pytest.mark.parametrize("case", CASES)
def test_it_costs_what_the_deeper_model_costs_and_stores_one_pass(case):
    config = ModelConfig(CASES[case], "all", d_model=16, depth=2, hidden=22)
    questions = site().questions
    once, deep, twice = (
        model_cost(dataclasses.replace(config, **changes), 11, WORK, questions=questions)
        for changes in ({}, {"depth": 4}, {"loops": 2})
    )
    assert (twice.forward, twice.backward, twice.bytes_read) == (deep.forward, deep.backward, deep.bytes_read)
    assert twice.params == once.params < deep.params


def test_it_is_matched_to_a_reference_that_is_passed_once():
    plain = ModelConfig(SMALL, [0], d_model=32, depth=2, hidden=88)
    for spend in ("hidden", "width", "depth"):
        config = dataclasses.replace(plain, ffn=Dense(), loops=2)
        matched = solve(config, MatchConfig(SMALL, times=2.0, spend=spend), 500, WORK)
        assert matched.target == 2 * model_cost(plain, 500, WORK).flops and matched.model.loops == 2
        assert matched.reached == pytest.approx(matched.target, rel=0.01)
        assert matched.cost == model_cost(matched.model, 500, WORK)
    looped, dense = (plan(one(f"arm={arm}", "world.num_subjects=300")).matched for arm in ("looped", "dense"))
    assert looped.target == dense.target and looped.cost.params < dense.cost.params


def test_one_pass_changes_no_digest():
    plain = one("arm=memory", "rates.arm=null")
    once, twice = (one("arm=memory", "rates.arm=null", f"model.loops={loops}", "match.times=4") for loops in (1, 2))
    assert "loops" not in decisive(once)["model"] and decisive(twice)["model"]["loops"] == 2
    assert digest(once) == digest(one("arm=memory", "rates.arm=null", "match.times=4")) != digest(twice)
    assert plain.model.loops == 1


def test_a_run_is_recorded_kept_and_traced(tmp_path):
    words = ["arm=memory", "rates.arm=null", "model.loops=2", "match.times=4", "save_model=true"]
    config = small(tmp_path, *words)
    record = run(config)
    assert record["model"]["loops"] == record["config"]["model"]["loops"] == 2
    assert set(record["recall"]["tables"]["usage"]) == {"0.ffn", "0.ffn.2"}
    (path,) = tmp_path.rglob("*.safetensors")
    model = memlayers.load(path)
    assert model.model.loops == 2
    fact = tuple(known_facts(model.text.world)[0].tolist())
    reads, scores = slots_of(model, fact), scores_of(model, fact)
    assert list(reads) == list(scores) == ["0.ffn", "0.ffn.2"]
    for place, read in reads.items():
        both = scores[place][:, 0, :, None] + scores[place][:, 1, None, :]  # (h, n, n)
        best = both.flatten(1).topk(len(read.slots) // len(both), dim=-1).indices.flatten()
        assert sorted(read.slots.tolist()) == sorted(best.tolist())
    subject, relation = model.text.world.names()[fact[0]], model.text.world.relations[fact[1]]
    assert {one_read.place for one_read in trace(model, subject, relation)} == {"0.ffn", "0.ffn.2"}
