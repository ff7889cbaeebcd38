"""Roles of parameters, and what each starts as."""

from dataclasses import replace

import pytest
import torch
from contract import CASES, D_MODEL, HIDDEN, NUM_TOKENS, QUESTIONS, SMALL
from stubs import seeded

from memlayers.config import ModelConfig
from memlayers.config.optim import ROLES
from memlayers.layers import Memory, NGram, ShortConv
from memlayers.model import Transformer, build_model, parameters_with_roles

STILL = {"vector": 1.0, "bias": 0.0, "filter": 0.0}


def build(settings, seed: int = 0, **changes) -> Transformer:
    config = ModelConfig(settings, "all", "add", d_model=D_MODEL, hidden=HIDDEN, tied_head=False, **changes)
    return build_model(config, NUM_TOKENS, seeded(seed), questions=QUESTIONS)


def test_roles_are_what_the_modules_declare():
    gated, extras = replace(SMALL, gate=True), {"residual": NGram(), "before": ShortConv()}
    model = build(gated, **extras)
    roles = {name: role for name, role, _ in parameters_with_roles(model)}
    assert set(roles) == {name for name, _ in model.named_parameters()}
    parts = {
        "embedding.weight": "embedding",
        "head.weight": "matrix",
        "norm.weight": "vector",
        "pools.0.values": "memory_value",
        "pools.3.values": "memory_value",
        "blocks.1.attention.to_qkv.weight": "matrix",
        "blocks.1.attention.out.weight": "output",
        "blocks.1.attention_norm.weight": "vector",
        "blocks.1.ffn.dense.up.weight": "matrix",
        "blocks.1.ffn.dense.down.weight": "output",
        "blocks.1.ffn.layer.gate.weight": "matrix",
        "blocks.1.ffn.layer.out.weight": "output",
        "blocks.1.ffn.layer.lookup.keys": "memory_key",
        "blocks.1.ffn.layer.lookup.to_query.weight": "matrix",
        "blocks.1.ffn.layer.lookup.gains.1": "vector",
        "blocks.1.before_attention.weight": "filter",
    }
    assert {name: roles[name] for name in parts} == parts


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_one_role_and_it_is_one_that_settings_know(case):
    model = build(CASES[case], residual=CASES[case], values=CASES[case], before=CASES[case])
    found = list(parameters_with_roles(model))
    assert len({name for name, _, _ in found}) == len(found)
    assert {id(parameter) for _, _, parameter in found} == {id(parameter) for parameter in model.parameters()}
    assert {role for _, role, _ in found} <= {*ROLES, "memory_value"}
    values = [id(parameter) for _, role, parameter in found if role == "memory_value"]
    assert values == [id(pool.values) for pool in model.tables()]


@pytest.mark.parametrize("case", CASES)
def test_a_seed_decides_the_parameters_and_nothing_else_does(case):
    torch.manual_seed(1)
    first = build(CASES[case], before=CASES[case])
    torch.manual_seed(2)
    same, other = (build(CASES[case], seed, before=CASES[case]) for seed in (0, 1))
    of_role = {id(parameter): role for _, role, parameter in parameters_with_roles(first)}
    triples = zip(first.named_parameters(), same.parameters(), other.parameters(), strict=True)
    for (name, mine), theirs, elsewhere in triples:
        assert mine.equal(theirs)
        constant = STILL.get(of_role[id(mine)])
        assert (mine == constant).all() if constant is not None else not mine.equal(elsewhere), name


@pytest.mark.parametrize("value_dtype", ["float32", "bfloat16"])
def test_parameters_start_with_the_spread_that_is_promised(value_dtype):
    """init_parameters: 1 / sqrt(width of the input or row); outputs / sqrt(2 * depth); embeddings as set; gains 1."""
    d_model, depth, hidden, num_tokens = 64, 3, 96, 300
    gated = Memory(num_keys=40, d_key=32, gate=True, value_dtype=value_dtype)
    table = NGram(num_slots=1500, value_dtype=value_dtype)
    sizes = {"d_model": d_model, "depth": depth, "hidden": hidden, "tied_head": False, "embedding_std": 0.7}
    config = ModelConfig(gated, "all", "add", table, table, ShortConv(), **sizes, value_scale=3.0)
    model = build_model(config, num_tokens, seeded())
    into_residual = (2 * depth) ** -0.5
    promised = {
        "to_qkv.weight": d_model**-0.5,
        "attention.out.weight": d_model**-0.5 * into_residual,
        "up.weight": d_model**-0.5,
        "down.weight": hidden**-0.5 * into_residual,
        "to_query.weight": d_model**-0.5,
        "lookup.keys": 16**-0.5,
        "values": 3 * d_model**-0.5,
        "gate.weight": d_model**-0.5,
        "layer.out.weight": d_model**-0.5 * into_residual,
        "embedding.weight": 0.7,
        "head.weight": d_model**-0.5,
    }
    met = set()
    for name, _, parameter in parameters_with_roles(model):
        if parameter.ndim == 1:
            assert parameter.equal(torch.ones_like(parameter)) and ("norm" in name or "gains" in name)
            continue
        if "before" in name:
            assert not parameter.any()
            continue
        (key,) = [ending for ending in promised if name.endswith(ending)]
        met.add(key)
        error = 4 / parameter.numel() ** 0.5  # of a mean or a spread over so many draws, with room
        drawn = parameter.double() / promised[key]
        assert abs(drawn.mean()) < error and abs(drawn.std() - 1) < error, name
        assert (drawn.abs() > 2).double().mean() == pytest.approx(0.0455, abs=0.01), name  # normal, not uniform
    assert met == set(promised)


@pytest.mark.parametrize("case", CASES)
def test_every_layer_starts_by_the_rule_of_its_roles(case):
    """As above for whatever a layer declares; a spread over few numbers is only roughly what it should be."""
    model = build(CASES[case], depth=3)
    for name, role, parameter in parameters_with_roles(model):
        if role in STILL:
            assert (parameter == STILL[role]).all(), name
            continue
        spread = 0.2 if role == "embedding" else parameter.shape[-1] ** -0.5 / (6**0.5 if role == "output" else 1)
        assert abs(parameter.double().std() / spread - 1) < 4 / parameter.numel() ** 0.5, name
