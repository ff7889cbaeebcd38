"""Which implementation runs: what was asked for, one line where it cannot, and what ran in the end."""

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import pytest
import torch
from contract import QUESTIONS, RULES, SMALL, TABLES
from stubs import seeded
from torch import nn

from memlayers import kernels
from memlayers.config import ModelConfig
from memlayers.layers import PLE, Memory, NGram, Peer, Stem, UltraMemV2
from memlayers.model import build_model
from memlayers.training.learner import unread


@pytest.fixture
def unnoticed() -> Iterator[None]:
    """No notice was given before the test or after it."""
    kernels._notice.cache_clear()
    yield
    kernels._notice.cache_clear()


@pytest.mark.parametrize("case", TABLES)
def test_a_model_has_the_references_loss_and_gradients(compiled, threads, case):
    settings, found = TABLES[case], []
    if isinstance(settings, Memory):
        settings = replace(settings, num_keys=40, topk=8, d_key=8)
    for choice in ("reference", "native"):
        config = ModelConfig(settings, "all", "add", values=settings)
        model = build_model(
            config, 50, seeded(1), kernels.choose(choice), questions=QUESTIONS
        )  # a seed without near ties of scores
        loss = model(torch.arange(48).view(6, 8)).logits.square().mean()
        loss.backward()
        learned = {name: p.grad.to_dense() for name, p in model.named_parameters() if p.requires_grad}
        found.append({"loss": loss} | learned)
    exact = getattr(settings, "value_dtype", "float32") == "float32"
    near = {"rtol": 1e-4, "atol": 1e-6} if exact else {"rtol": 5e-2, "atol": 1e-2}
    for key, theirs in found[0].items():
        torch.testing.assert_close(found[1][key], theirs, **near, msg=key)


def odd_calls() -> dict[str, tuple[Callable[[kernels.Kernels], object], str]]:
    """What the kernels cannot take, and how they say so."""
    query, keys, values = torch.randn(3, 2, 2, 4), torch.randn(2, 2, 300, 4), torch.randn(8, 4)
    slots, weights, gaps = torch.randint(8, (3, 2)), torch.rand(3, 2), torch.randn(4, 8).T
    return {
        "float64 queries": (lambda k: k.look_up(query.double(), keys.double(), None, 3), "query of torch.float64"),
        "a large k": (lambda k: k.look_up(query, keys, None, 257), "topk=257; accepted: 1 to 256"),
        "float64 values": (
            lambda k: k.weighted_read(values.double(), slots, weights.double()),
            "values of torch.float",
        ),
        "half weights": (lambda k: k.weighted_read(values, slots, weights.bfloat16()), "weights of torch.bfloat16"),
        "a table with gaps": (lambda k: k.weighted_read(gaps, slots, weights), "values 8 x 4"),
        "a wide table": (
            lambda k: k.weighted_read(torch.zeros(8, 16_385), slots, weights),
            "values 8 x 16385; accepted",
        ),
        "float64 rows": (
            lambda k: k.sgd_rows(values.double(), torch.arange(2), torch.ones(2, 4).double(), rate=0.1),
            "values of torch.float64",
        ),
    }


@pytest.mark.parametrize("case", odd_calls())
def test_what_it_cannot_take_stops_native_in_one_line_and_auto_says_so_once(compiled, unnoticed, case):
    call, said = odd_calls()[case]
    with pytest.raises(ValueError, match=rf"^kernels=native: {said}[^\n]*, or kernels=auto$"):
        call(kernels.choose("native"))
    wanted = call(kernels.REFERENCE)
    with pytest.warns(UserWarning, match=rf"^kernels=auto: {said}[^\n]*; taking the reference$") as notices:
        got = call(kernels.choose("auto"))
        call(kernels.choose("auto"))
    assert len(notices) == 1
    torch.testing.assert_close(got, wanted)


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match="kernels='foo' is not known; accepted: auto, native, reference, triton"):
        kernels.choose("foo")


def test_what_would_leave_the_table_is_refused_and_the_reference_says_why(compiled, unnoticed):
    values, weights = torch.zeros(8, 4), torch.rand(3, 2)
    state = torch.zeros(7, 4)
    adam = {"rate": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "step": 1}
    calls = {
        "slots from 8": lambda k: k.weighted_read(values, torch.full((3, 2), 8), weights),
        "slots from -1": lambda k: k.weighted_read(values, torch.full((3, 2), -1), weights),
        "slots .2, 3.": lambda k: k.weighted_read(values, torch.zeros(2, 3, dtype=torch.int64), weights),
        "slots .3, 2. of torch.int32": lambda k: k.weighted_read(values, torch.zeros(3, 2, dtype=torch.int32), weights),
        "rows from 9": lambda k: k.sgd_rows(values, torch.tensor([9]), torch.ones(1, 4), rate=0.1),
        "2 rows and gradient": lambda k: k.sgd_rows(values, torch.arange(2), torch.ones(1, 4), rate=0.1),
        "state": lambda k: k.adam_rows(values, state, state, torch.arange(1), torch.ones(1, 4), **adam),
        "topk=4; accepted: 1 to 3": lambda k: k.look_up(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 3, 2), None, 4),
        "query": lambda k: k.look_up(torch.ones(1, 1, 2, 2), torch.ones(2, 2, 3, 2), None, 1),
        "gains of torch.float64": lambda k: k.look_up(
            torch.ones(1, 1, 2, 2), torch.ones(1, 2, 3, 2), [torch.ones(2), torch.ones(2).double()], 1
        ),
        "gains .3,., .2,.; accepted: .2,. both": lambda k: k.look_up(
            torch.ones(1, 1, 2, 2), torch.ones(1, 2, 3, 2), [torch.ones(3), torch.ones(2)], 1
        ),
    }
    for said, call in calls.items():
        with pytest.raises(ValueError, match=f"^kernels=native: {said}"):
            call(kernels.choose("native"))
    assert not values.any()


def test_a_step_is_seen_by_a_backward_that_comes_too_late(compiled):
    values = nn.Parameter(torch.randn(8, 4))
    slots, weights = torch.arange(6).view(3, 2), torch.rand(3, 2, requires_grad=True)
    chosen = kernels.choose("native")
    read = chosen.weighted_read(values, slots, weights)
    read.sum().backward(retain_graph=True)
    RULES["sgd"].build([values], chosen).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        read.sum().backward()


@pytest.mark.parametrize("choice", ["reference", "auto"])
@pytest.mark.parametrize("rule", RULES)
def test_models_and_optimizers_can_be_pickled_and_go_on(choice, rule):
    model = build_model(ModelConfig(SMALL, blocks="all"), 50, seeded(), kernels.choose(choice))
    optimizer = RULES[rule].build([model.pools[0].values], kernels.choose(choice))
    model(torch.arange(8).view(2, 4)).logits.sum().backward()
    optimizer.step()
    for model_again, again in (copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))):
        model_again(torch.arange(8).view(2, 4)).logits.sum().backward()
        again.step()
        assert again.kernels == optimizer.kernels and not model_again.pools[0].values.equal(model.pools[0].values)


def test_a_nan_in_bfloat16_stays_one(compiled):
    values = torch.ones(2, 4, dtype=torch.bfloat16)
    grad = torch.tensor([[float("nan"), 1.0, float("inf"), 0.0]], dtype=torch.bfloat16)
    kernels.choose("native").sgd_rows(values, torch.tensor([1]), grad, rate=1.0)
    assert values[1].isnan().tolist() == [True, False, False, False] and values[1, 2] == -float("inf")
    bits = torch.tensor([0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    table = torch.zeros(1, 1, dtype=torch.bfloat16)
    read = kernels.choose("native").weighted_read(
        table.requires_grad_(), torch.zeros(1, 1, dtype=torch.int64), bits[None]
    )
    read.sum().backward()
    assert table.grad.to_dense().isnan().all()


def test_a_dense_gradient_is_the_references(compiled):
    values = torch.randn(8, 4, requires_grad=True)
    kernels.choose("native").weighted_read(
        values, torch.randint(8, (3, 2)), torch.rand(3, 2), sparse=False
    ).sum().backward()
    assert not values.grad.is_sparse


def test_what_ran_is_told_of_each_function_that_was_called(compiled):
    native, other = kernels.choose("native"), kernels.choose("native")
    assert kernels.implementations_used(native) == {} == kernels.implementations_used(kernels.REFERENCE)
    native.look_up(torch.randn(3, 2, 2, 4), torch.randn(2, 2, 9, 4), None, 3)
    assert kernels.implementations_used(native) == {"look_up": "native"} and kernels.implementations_used(other) == {}
    native.sgd_rows(torch.zeros(8, 4), torch.arange(2), torch.ones(2, 4), rate=0.1)
    native.huge_pages(torch.zeros(8, 4))
    assert kernels.implementations_used(native) == {"look_up": "native", "sgd_rows": "native"}
    kernels.REFERENCE.look_up(torch.randn(3, 2, 2, 4), torch.randn(2, 2, 9, 4), None, 3)
    assert kernels.implementations_used(kernels.REFERENCE) == {}


def test_a_function_that_fell_back_says_so_and_one_that_stopped_did_not_run(compiled, unnoticed):
    values, slots, weights = torch.randn(8, 4), torch.randint(8, (3, 2)), torch.rand(3, 2)
    auto, native = kernels.choose("auto"), kernels.choose("native")
    with pytest.warns(UserWarning, match="taking the reference"):
        auto.weighted_read(values.double(), slots, weights.double())
    assert kernels.implementations_used(auto) == {"weighted_read": "reference"}
    auto.weighted_read(values, slots, weights)
    assert kernels.implementations_used(auto) == {"weighted_read": "native, reference"}
    with pytest.raises(ValueError, match="kernels=native"):
        native.weighted_read(values.double(), slots, weights.double())
    assert kernels.implementations_used(native) == {}


@pytest.mark.parametrize("choice", ["reference", "native", "auto"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", TABLES)
def test_what_ran_in_a_training_step_of_a_model(compiled, case, rule, choice):
    chosen = kernels.choose(choice)
    model = build_model(ModelConfig(TABLES[case], "all"), 50, seeded(), chosen, questions=QUESTIONS)
    optimizer = RULES[rule].build([pool.values for pool in model.pools], chosen)
    model(torch.arange(8).view(2, 4)).logits.sum().backward()
    optimizer.step()
    rows = {"lazy_adam": "adam_rows", "rowwise_adam": "adam_rows", "rowwise_adagrad": "adagrad_rows", "sgd": "sgd_rows"}
    called = {Memory: ("look_up", "weighted_read"), Peer: ("look_up",), Stem: (), PLE: (), UltraMemV2: ()}
    parts = called.get(type(TABLES[case]), ("weighted_read",))
    if getattr(TABLES[case], "score", "softmax") != "softmax":
        parts = parts[1:]  # the lookup in C is for softmax
    assert kernels.implementations_used(chosen) == (
        {} if choice == "reference" else dict.fromkeys((*parts, rows[rule]), "native")
    )
    assert set(kernels.implementations_used(chosen)) <= {one.name for one in fields(kernels.Kernels)}


@pytest.mark.parametrize("layer", [Memory(num_keys=5, topk=3, d_key=4), NGram(num_slots=30)])
def test_who_learns_nothing_is_found_without_a_faster_kernel(compiled, layer):
    """A norm before a layer that looks at tokens alone; a GPU's kernels could not compute where the model still is."""
    native = kernels.choose("native")
    model = build_model(ModelConfig(layer), 20, seeded(), native)
    names = {id(one): name for name, one in model.named_parameters()}
    tables = [id(pool.values) for pool in model.tables()]
    found = unread(model, [one for one in model.parameters() if id(one) not in tables])
    tokens_alone = isinstance(layer, NGram)
    assert len(found) == tokens_alone and all("norm" in names[id(one)] for one in found)
    assert kernels.implementations_used(native) == {}
    model(torch.arange(8).view(2, 4))
    assert kernels.implementations_used(native)["weighted_read"] == "native"
