"""One contract for every layer, each against its twin of loops: contract.py lists them."""

import pytest
import torch
from contract import CASES, CONTRACT, D_MODEL, NUM_TOKENS, TABLES, beside, drawn, entry_of, random_tokens, site, twin
from torch import Tensor, nn

from memlayers.layers import LAYERS

MAKES = {name: lambda settings=settings: settings.build(site()) for name, settings in CASES.items()}
for kind, entry in CONTRACT.items():
    one = next(iter(entry.settings.values()))
    MAKES[f"beside {kind.__name__}"] = lambda settings=one: beside(settings, site())
    if hasattr(one, "pool"):
        MAKES[f"{kind.__name__} with dense gradient"] = lambda settings=one: settings.build(site(sparse=False))


@pytest.fixture(params=MAKES)
def build(request):
    return lambda: drawn(MAKES[request.param]())


@pytest.fixture
def layer(build):
    return build()


def near(layer: nn.Module) -> dict[str, float]:
    exact = all(parameter.dtype == torch.float32 for parameter in layer.parameters())
    return {"rtol": 1e-4, "atol": 1e-5} if exact else {"rtol": 3e-2, "atol": 6e-2}


def learned(layer: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in layer.named_parameters() if parameter.requires_grad}


def gradients(layer: nn.Module, x: Tensor, tokens: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Of what is learned; nothing else has one."""
    layer.zero_grad()
    (layer(x, tokens).hidden.float() * weight).sum().backward()
    assert all(parameter.requires_grad or parameter.grad is None for parameter in layer.parameters())
    return {name: parameter.grad for name, parameter in learned(layer).items()}


def differ(one: Tensor, other: Tensor, limit: float) -> list[list[int]]:
    """Where hidden vectors (b, s, d) do."""
    return ((one - other).abs() > limit).any(dim=-1).nonzero().tolist()


def test_every_layer_has_an_entry_with_settings_that_can_be():
    assert set(CONTRACT) == set(LAYERS), "a layer of LAYERS is under test once contract.CONTRACT has an entry for it"
    for settings in CASES.values():
        settings.validate("model.ffn", D_MODEL)


def test_it_equals_its_twin_and_so_do_its_gradients(layer):
    x, tokens, weight = torch.randn(2, 3, D_MODEL, requires_grad=True), random_tokens(2, 3), torch.randn(2, 3, D_MODEL)
    wanted = twin(layer, x, tokens)
    torch.testing.assert_close(layer(x, tokens).hidden, wanted, **near(layer))
    names, parameters = zip(*learned(layer).items(), strict=True)
    loss = (wanted * weight).sum()
    of_x, *of_parameters = torch.autograd.grad(loss, (x, *parameters), allow_unused=True)
    found = gradients(layer, x, tokens, weight)
    assert (x.grad is None) == (of_x is None)  # a layer may look at tokens alone
    if of_x is not None:
        torch.testing.assert_close(x.grad, of_x, **near(layer))
    for name, gradient in zip(names, of_parameters, strict=True):
        torch.testing.assert_close(found[name].to_dense(), gradient, **near(layer))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 0), (0, 4)])
def test_shapes(layer, shape):
    out = layer(torch.randn(*shape, D_MODEL), random_tokens(*shape))
    assert out.hidden.shape == (*shape, D_MODEL) and out.hidden.dtype == torch.float32
    pools = [module.pool for module in layer.modules() if hasattr(module, "pool")]
    assert (out.reads is not None) == bool(pools)
    for pool in pools:
        assert out.reads.slots.shape == out.reads.weights.shape and out.reads.slots.shape[:2] == shape
        assert out.reads.slots.dtype == torch.int64
        assert ((out.reads.slots >= 0) & (out.reads.slots < len(pool.values))).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 14])
def test_a_token_changes_what_it_reaches_and_nothing_before_it_or_in_other_documents(case, length):
    layer, entry = drawn(CASES[case].build(site())), entry_of(CASES[case])
    far, seen = entry.reach(CASES[case]), set()
    x, tokens = torch.randn(3, length, D_MODEL), random_tokens(3, length)
    before = layer(x, tokens).hidden
    for position in range(length):
        other_x, other_tokens = x.clone(), tokens.clone()
        other_x[1, position] += 1.0
        other_tokens[1, position] = (tokens[1, position] + 3) % NUM_TOKENS
        reached = [[1, later] for later in range(position, min(position + far + 1, length))]
        changed = differ(layer(other_x, other_tokens).hidden, before, entry.rounding)
        assert changed == reached if entry.always else all(place in reached for place in changed)
        seen.update(place - position for _, place in changed)
        for one in (layer(other_x, tokens), layer(x, other_tokens)):
            assert all(place in reached for place in differ(one.hidden, before, entry.rounding))
    assert max(seen, default=0) == (min(far, length - 1))


def test_every_parameter_learns(layer):
    x = torch.randn(8, 16, D_MODEL, requires_grad=True)
    found = gradients(layer, x, random_tokens(8, 16), torch.randn(8, 16, D_MODEL))
    assert not [name for name, grad in found.items() if grad is None or not grad.to_dense().any()]
    assert all(grad.to_dense().isfinite().all() for grad in found.values())
    assert x.grad is None or x.grad.abs().sum(dim=-1).all()


def test_bfloat16(layer):
    x, tokens, weight = torch.randn(4, 8, D_MODEL).bfloat16(), random_tokens(4, 8), torch.randn(4, 8, D_MODEL)
    half = layer.to(torch.bfloat16)
    out, found = half(x, tokens), gradients(half, x, tokens, weight)
    assert out.hidden.dtype == torch.bfloat16
    assert {grad.dtype for grad in found.values()} == {torch.bfloat16}
    assert not [name for name, grad in found.items() if not grad.to_dense().any()]
    in_float = layer.to(torch.float32)(x.float(), tokens).hidden
    error = (out.hidden.float() - in_float).norm(dim=-1) / in_float.norm(dim=-1).clamp(min=1e-6)  # where none is read
    assert error.median() < 0.02  # a token whose last read changes its slot may be further off


def test_autocast_keeps_parameters_and_gradients_in_their_dtype(layer):
    x, tokens, weight = torch.randn(4, 8, D_MODEL), random_tokens(4, 8), torch.randn(4, 8, D_MODEL)
    own = {name: parameter.dtype for name, parameter in learned(layer).items()}
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, x, tokens, weight)
        hidden = layer(x, tokens).hidden.float()
    assert {name: grad.dtype for name, grad in found.items()} == own
    exact = layer(x, tokens).hidden
    assert ((hidden - exact).norm(dim=-1) / exact.norm(dim=-1).clamp(min=1e-6)).median() < 0.02


def test_state_round_trips(build):
    first, second = build(), build()
    x, tokens = torch.randn(8, 3, D_MODEL), random_tokens(8, 3)
    assert not first(x, tokens).hidden.equal(second(x, tokens).hidden)
    second.load_state_dict(first.state_dict())
    assert first(x, tokens).hidden.equal(second(x, tokens).hidden)


def test_two_layers_of_two_models_share_nothing(build):
    first, second = build(), build()
    assert {id(p) for p in first.parameters()}.isdisjoint(id(p) for p in second.parameters())
    assert {p.data_ptr() for p in first.parameters()}.isdisjoint(p.data_ptr() for p in second.parameters())


@pytest.mark.parametrize("case", TABLES)
def test_two_layers_of_one_model_share_a_pool_where_they_ask_for_it_and_nothing_else(case):
    where, settings = site(), TABLES[case]
    first, second = settings.build(where), settings.build(where)
    assert (first.pool is second.pool) == (settings.pool == "shared")
    made = [first.pool] if settings.pool == "shared" else [first.pool, second.pool]
    assert [id(pool) for pool in where.pools] == [id(pool) for pool in made]
    common = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert common == ({id(first.pool.values)} if settings.pool == "shared" else set())
    assert first.pool.values.shape[1] == entry_of(settings).width(settings)
    assert first.pool.values.dtype == getattr(torch, getattr(settings, "value_dtype", "float32"))


@pytest.mark.parametrize("case", CASES)
def test_a_layer_beside_a_dense_one_reports_what_it_returns_alone(case):
    both = drawn(beside(CASES[case], site()))
    x, tokens = torch.randn(2, 3, D_MODEL), random_tokens(2, 3)
    out, alone = both(x, tokens), both.layer(x, tokens)
    assert out.hidden.equal(both.dense(x, tokens).hidden + alone.hidden)
    assert (out.reads is None) == (alone.reads is None) and (out.aux_loss is None) == (alone.aux_loss is None)
    assert out.aux_loss is None or out.aux_loss.equal(alone.aux_loss)
    assert out.reads is None or (out.reads.slots.equal(alone.reads.slots))
