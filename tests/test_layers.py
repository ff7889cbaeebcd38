"""One contract for every feed-forward, each against its twin of loops; and attention against its own."""

import naive
import pytest
import torch
from torch import Tensor, nn

from memlayers.layers.attention import Attention, rotate
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.memory import ProductKeyLookup, ProductKeyMemory
from memlayers.layers.memory_plus import MemoryPlus
from memlayers.layers.pool import MemoryPool, weighted_read

D_MODEL = 8
HEADS, TOPK = 2, 3


def lookup(qk_norm: bool = True) -> ProductKeyLookup:
    return ProductKeyLookup(D_MODEL, num_keys=5, heads=HEADS, topk=TOPK, d_key=4, qk_norm=qk_norm)


def pool(sparse: bool = True) -> MemoryPool:
    return MemoryPool(25, D_MODEL, sparse=sparse)


FEED_FORWARDS = {
    "SwiGLU": lambda: SwiGLU(D_MODEL, 12),
    "ProductKeyMemory": lambda: ProductKeyMemory(lookup(), pool()),
    "ProductKeyMemory without norm": lambda: ProductKeyMemory(lookup(qk_norm=False), pool()),
    "ProductKeyMemory with dense gradient": lambda: ProductKeyMemory(lookup(), pool(sparse=False)),
    "MemoryPlus": lambda: MemoryPlus(D_MODEL, lookup(), pool()),
    "MemoryPlus of narrow values": lambda: MemoryPlus(D_MODEL, lookup(), MemoryPool(25, 6)),
    "Beside": lambda: Beside(SwiGLU(D_MODEL, 12), ProductKeyMemory(lookup(), pool())),
    "Beside with MemoryPlus": lambda: Beside(SwiGLU(D_MODEL, 12), MemoryPlus(D_MODEL, lookup(), pool())),
}


@pytest.fixture(params=FEED_FORWARDS)
def build(request):
    return lambda: drawn(FEED_FORWARDS[request.param]())


@pytest.fixture
def layer(build):
    return build()


def drawn(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return module


def gradients(layer: nn.Module, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    layer.zero_grad()
    (layer(x).hidden.float() * weight).sum().backward()
    return {name: parameter.grad for name, parameter in layer.named_parameters()}


def test_it_equals_its_twin_and_so_do_its_gradients(layer):
    x, weight = torch.randn(2, 3, D_MODEL, requires_grad=True), torch.randn(2, 3, D_MODEL)
    twin = naive.feed_forward(layer, x)
    torch.testing.assert_close(layer(x).hidden, twin, rtol=1e-4, atol=1e-5)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    of_x, *wanted = torch.autograd.grad((twin * weight).sum(), (x, *parameters))
    found = gradients(layer, x, weight)
    torch.testing.assert_close(x.grad, of_x, rtol=1e-4, atol=1e-5)
    for name, gradient in zip(names, wanted, strict=True):
        torch.testing.assert_close(found[name].to_dense(), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 0), (0, 4)])
def test_shapes(layer, shape):
    out = layer(torch.randn(*shape, D_MODEL))
    assert out.hidden.shape == (*shape, D_MODEL) and out.hidden.dtype == torch.float32
    if isinstance(layer, SwiGLU):
        assert out.reads is None
    else:
        assert out.reads.slots.shape == out.reads.weights.shape == (*shape, HEADS * TOPK)
        assert out.reads.slots.dtype == torch.int64


def test_position_wise(layer):
    x = torch.randn(2, 5, D_MODEL)
    other = x.clone()
    other[1, 3] += 1.0
    changed = (layer(x).hidden != layer(other).hidden).any(dim=-1)
    assert changed.nonzero().tolist() == [[1, 3]]


def test_every_parameter_learns(layer):
    x = torch.randn(8, 16, D_MODEL, requires_grad=True)
    found = gradients(layer, x, torch.randn(8, 16, D_MODEL))
    assert not [name for name, grad in found.items() if grad is None or not grad.to_dense().any()]
    assert all(grad.to_dense().isfinite().all() for grad in found.values())
    assert x.grad.abs().sum(dim=-1).all()


def test_bfloat16(layer):
    x, weight = torch.randn(4, 8, D_MODEL).bfloat16(), torch.randn(4, 8, D_MODEL)
    half = layer.to(torch.bfloat16)
    out, found = half(x), gradients(half, x, weight)
    assert out.hidden.dtype == torch.bfloat16
    assert {grad.dtype for grad in found.values()} == {torch.bfloat16}
    assert not [name for name, grad in found.items() if not grad.to_dense().any()]
    in_float = layer.to(torch.float32)(x.float()).hidden
    error = (out.hidden.float() - in_float).norm(dim=-1) / in_float.norm(dim=-1)
    assert error.median() < 0.02  # a token whose last read changes its slot may be further off


def test_autocast_keeps_parameters_and_gradients_in_float32(layer):
    x, weight = torch.randn(4, 8, D_MODEL), torch.randn(4, 8, D_MODEL)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, x, weight)
        hidden = layer(x).hidden.float()
    assert {grad.dtype for grad in found.values()} == {torch.float32}
    exact = layer(x).hidden
    assert ((hidden - exact).norm(dim=-1) / exact.norm(dim=-1)).median() < 0.02


def test_state_round_trips(build):
    first, second = build(), build()
    x = torch.randn(2, 3, D_MODEL)
    assert not first(x).hidden.equal(second(x).hidden)
    second.load_state_dict(first.state_dict())
    assert first(x).hidden.equal(second(x).hidden)


def test_two_layers_share_nothing(build):
    first, second = build(), build()
    assert {id(p) for p in first.parameters()}.isdisjoint(id(p) for p in second.parameters())
    assert {p.data_ptr() for p in first.parameters()}.isdisjoint(p.data_ptr() for p in second.parameters())


def test_reads_say_what_was_added_up():
    layer = drawn(ProductKeyMemory(lookup(), pool()))
    out = layer(torch.randn(3, 5, D_MODEL))
    slots, weights = (part.flatten(0, 1) for part in out.reads)
    torch.testing.assert_close(out.hidden.flatten(0, 1), weighted_read(layer.pool.values, slots, weights))
    by_head = weights.unflatten(-1, (HEADS, TOPK))
    torch.testing.assert_close(by_head.sum(dim=-1), torch.ones(15, HEADS))
    assert by_head.equal(by_head.sort(dim=-1, descending=True).values) and (weights > 0).all()
    assert all(len(set(row)) == TOPK for row in slots.unflatten(-1, (HEADS, TOPK)).flatten(0, 1).tolist())


def test_the_memory_beside_a_dense_layer_reports_its_reads():
    both = drawn(Beside(SwiGLU(D_MODEL, 12), ProductKeyMemory(lookup(), pool())))
    x = torch.randn(2, 3, D_MODEL)
    assert both(x).reads.slots.equal(both.memory(x).reads.slots)


def test_normed_queries_do_not_see_how_large_the_input_is():
    x = torch.randn(2, 6, D_MODEL)
    normed, plain = drawn(lookup()), drawn(lookup(qk_norm=False))
    torch.testing.assert_close(normed(x), normed(50 * x), rtol=1e-4, atol=1e-5)
    assert plain(x).slots.equal(plain(50 * x).slots)  # the order of scores stays, but the softmax sharpens
    assert (plain(50 * x).weights.amax(dim=-1) > plain(x).weights.amax(dim=-1)).all()


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_attention_equals_its_twin(num_heads):
    layer = drawn(Attention(D_MODEL, num_heads))
    x, weight = torch.randn(2, 6, D_MODEL, requires_grad=True), torch.randn(2, 6, D_MODEL)
    found, twin = layer(x), naive.attention(layer, x)
    torch.testing.assert_close(found, twin, rtol=1e-4, atol=1e-5)
    wanted = [x, *layer.parameters()]
    pairs = (torch.autograd.grad((made * weight).sum(), wanted) for made in (found, twin))
    for got, one in zip(*pairs, strict=True):
        torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-5)


def test_attention_is_causal_and_keeps_to_its_document():
    layer, x = drawn(Attention(D_MODEL, 2)), torch.randn(2, 7, D_MODEL)
    for position in range(7):
        other = x.clone()
        other[1, position] += 1.0
        changed = (layer(x) != layer(other)).any(dim=-1)
        assert changed.nonzero().tolist() == [[1, later] for later in range(position, 7)]


def test_every_parameter_of_attention_learns_and_bfloat16():
    layer, x = drawn(Attention(D_MODEL, 2)), torch.randn(3, 6, D_MODEL)
    wanted = layer(x)
    wanted.square().sum().backward()
    assert all(parameter.grad.any(dim=1).all() for parameter in layer.parameters())
    half = layer.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("width", [2, 8, 64])
def test_rotation_equals_its_twin_and_keeps_lengths(width):
    x = torch.randn(3, 12, width)
    wanted = torch.stack([torch.stack([naive.rotate(x[b, s], s) for s in range(12)]) for b in range(3)])
    torch.testing.assert_close(rotate(x), wanted)
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))


def test_rotated_products_depend_on_the_distance_alone():
    query, key = rotate(torch.randn(16).expand(20, 16)), rotate(torch.randn(16).expand(20, 16))
    product = query @ key.T
    torch.testing.assert_close(product[:-1, :-1], product[1:, 1:], rtol=1e-4, atol=1e-4)
    assert product[0].unique().numel() > 10  # and they do depend on it


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"topk": 9}, "topk=9 is out of range; accepted: 1 to num_keys=8"),
        ({"d_key": 5}, "d_key=5 has no two halves; accepted: an even number from 2"),
    ],
)
def test_a_lookup_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        ProductKeyLookup(16, **{"num_keys": 8, "heads": 2, "topk": 4, "d_key": 6} | wrong)
