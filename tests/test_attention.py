"""Causal attention with rotary positions, against its twin of loops."""

import naive
import pytest
import torch
from contract import D_MODEL, drawn

from memlayers.layers.attention import Attention, rotate


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_attention_equals_its_twin(num_heads):
    layer, weight = drawn(Attention(D_MODEL, num_heads)), torch.randn(2, 6, D_MODEL)
    x, added = torch.randn(2, 6, D_MODEL, requires_grad=True), torch.randn(2, 6, D_MODEL, requires_grad=True)
    for extra in ((), (added,)):
        found, twin = layer(x, *extra), naive.attention(layer, x, *extra)
        torch.testing.assert_close(found, twin, rtol=1e-4, atol=1e-5)
        wanted = [x, *extra, *layer.parameters()]
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
