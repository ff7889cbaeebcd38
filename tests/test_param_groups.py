"""Parameters by role for an optimizer of one's own: each once, tables last, and gradients as they were asked for."""

import copy

import pytest
import torch
from contract import CASES, D_MODEL, SMALL, TABLES, build, random_tokens
from foreign_models import foreign
from torch import nn

import memlayers
from memlayers import kernels
from memlayers.layers import Memory, NGram, Peer
from memlayers.model import parameters_with_roles
from memlayers.optim import SGD, LazyAdam, RowwiseAdagrad


def swapped(pool: str = "shared", **changes) -> nn.Module:
    model = foreign()
    memlayers.swap(model, "blocks.*.mlp", Memory(5, 2, 3, gate=True), pool=pool, **changes)
    return model


def backward(model: nn.Module) -> None:
    model(torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(0))).square().sum().backward()


def by_role(groups: list[dict]) -> dict[str, set[int]]:
    return {group["role"]: {id(p) for p in group["params"]} for group in groups}


def test_each_parameter_is_in_one_group_of_its_role():
    model = swapped()
    groups = memlayers.param_groups(model)
    owned = [id(p) for group in groups for p in group["params"]]
    assert len(owned) == len(set(owned)) and set(owned) == {id(p) for p in model.parameters()}
    roles = by_role(groups)
    layer = model.blocks[1]["mlp"].layer
    assert roles["memory_value"] == {id(layer.pool.values)} and groups[-1]["role"] == "memory_value"
    assert id(layer.lookup.keys) in roles["memory_key"] and id(layer.gate.weight) in roles["matrix"]
    assert id(layer.out.weight) in roles["output"] and id(layer.lookup.gains[0]) in roles["vector"]
    others = [model.attention, model.head, model.other_mlp, *(block["norm"] for block in model.blocks)]
    assert roles["rest"] == {id(p) for one in others for p in one.parameters()}


@pytest.mark.parametrize("case", CASES)
def test_our_own_models_have_their_roles_and_no_rest(case):
    model = build(CASES[case])
    assert by_role(memlayers.param_groups(model)) == {"memory_value": set()} | {
        role: {id(p) for _, own, p in parameters_with_roles(model) if own == role and p.requires_grad}
        for role in {own for _, own, p in parameters_with_roles(model) if p.requires_grad}
    }


def test_settings_are_by_role_and_only_what_may_decay_does():
    groups = memlayers.param_groups(swapped(), "dense", memory_key={"lr": 3e-3}, vector={"weight_decay": 0.5})
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.1)
    rates = {group["role"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {
        "memory_key": (3e-3, 0.1),
        "matrix": (1e-4, 0.1),
        "output": (1e-4, 0.1),
        "rest": (1e-4, 0.1),
        "vector": (1e-4, 0.5),
        "memory_value": (1e-4, 0.0),
    }
    with pytest.raises(ValueError, match=r"^role='memory_keys' is not known; accepted: memory_value, matrix, "):
        memlayers.param_groups(swapped(), memory_keys={"lr": 1})
    with pytest.raises(
        ValueError, match=r"^filter: no trainable parameter has this role; accepted: matrix, memory_key"
    ):
        memlayers.param_groups(swapped(), filter={"lr": 1})
    for wrong in (1e-3, {"params": []}):
        with pytest.raises(ValueError, match=r"^memory_key=.* is no settings of a group; accepted: a dict"):
            memlayers.param_groups(swapped(), memory_key=wrong)
    with pytest.raises(ValueError, match=r"^tables='rows' is not known; accepted: sparse, dense"):
        memlayers.param_groups(swapped(), "rows")


def test_what_is_frozen_is_in_no_group_and_tables_stay_last():
    model = swapped(freeze=True)
    assert "rest" not in by_role(memlayers.param_groups(model))
    model.blocks[0]["mlp"].layer.pool.requires_grad_(False)
    *_, values = groups = memlayers.param_groups(model)
    assert values == {"params": [], "role": "memory_value", "weight_decay": 0.0}
    torch.optim.AdamW(groups)


@pytest.mark.parametrize("rule", [RowwiseAdagrad(lr=0.1), LazyAdam(lr=0.1), SGD(lr=0.1), torch.optim.SGD], ids=str)
@pytest.mark.parametrize("pool", ["own", "shared"])
def test_sparse_tables_move_where_they_were_read_and_nowhere_else(rule, pool):
    model = swapped(pool)
    *_, values = memlayers.param_groups(model, "sparse")
    before = copy.deepcopy(values["params"])
    rows = (
        rule(values["params"], 0.1) if isinstance(rule, type) else rule.build(values["params"], kernels.choose("auto"))
    )
    backward(model)
    grads = [p.grad.to_dense() for p in values["params"]]
    assert all(p.grad.is_sparse for p in values["params"])
    rows.step()
    for old, new, grad in zip(before, values["params"], grads, strict=True):
        assert ((old != new).any(dim=1) == (grad != 0).any(dim=1)).all() and (old != new).any()


@pytest.mark.parametrize("case", TABLES)
def test_dense_tables_have_the_same_gradients_for_any_optimizer(case):
    tokens = random_tokens(2, 5)
    model = build(TABLES[case])
    found = {}
    for tables in ("sparse", "dense", "sparse"):
        *_, values = memlayers.param_groups(model, tables)
        model.zero_grad()
        model(tokens).logits.square().sum().backward()
        assert {p.grad.is_sparse for p in values["params"]} == {tables == "sparse"}
        found[tables] = [p.grad.to_dense() for p in values["params"]]
    loose = {"rtol": 0.02, "atol": 0.02} if "bfloat16" in case else {}  # sums of rows are rounded elsewhere
    torch.testing.assert_close(found["sparse"], found["dense"], **loose)
    memlayers.param_groups(model, "dense")
    model.zero_grad()
    model(tokens).logits.square().sum().backward()
    torch.optim.AdamW(model.parameters()).step()


def test_plain_adamw_says_that_it_takes_no_sparse_gradients():
    model = swapped()
    optimizer = torch.optim.AdamW(memlayers.param_groups(model, "sparse"))
    backward(model)
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_a_rule_of_rows_says_that_it_takes_no_dense_gradients():
    model = swapped()
    *_, values = memlayers.param_groups(model, "dense")
    optimizer = SGD().build(values["params"])
    backward(model)
    with pytest.raises(ValueError, match=r"^a value table has a dense gradient; accepted: sparse ones [^\n]*$"):
        optimizer.step()


@pytest.mark.parametrize("ffn", [SMALL, Peer(5, 2, 3), NGram(2, 30, 2)], ids=["memory", "peer", "ngram"])
def test_it_is_of_use_for_our_own_models(ffn):
    model, tokens = build(ffn), random_tokens(4, 5)
    optimizer = torch.optim.AdamW(memlayers.param_groups(model, "dense", embedding={"lr": 1e-2}), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).logits, tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
