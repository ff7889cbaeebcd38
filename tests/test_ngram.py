"""The hash of n-grams against Python's integers, how evenly it spreads, and the layers that only look at neighbours."""

import naive_tables
import pytest
import torch
from contract import D_MODEL, NUM_TOKENS, drawn, random_tokens, site
from hypothesis import given
from hypothesis import strategies as st
from naive_tables import wrapped
from stubs import seeded

from memlayers.layers import NGram, ShortConv
from memlayers.layers.ngram import ngram_slots


@given(
    st.lists(st.integers(0, 2**31), max_size=6),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(2, 2**31),
)
def test_slots_are_those_of_integers_that_wrap_by_hand(tokens, n, hashes, size):
    got = ngram_slots(torch.tensor([tokens], dtype=torch.int64), n, hashes, size)
    assert got.shape == (1, len(tokens), hashes) and got.dtype == torch.int64
    wanted = [
        [naive_tables.hashed(tokens[: position + 1], n, which, size) for which in range(hashes)]
        for position in range(len(tokens))
    ]
    assert got[0].tolist() == wanted
    assert all(0 <= slot < size for row in wanted for slot in row)


def test_products_do_wrap_around():
    """Else the twin's wrapping by hand would prove nothing."""
    assert wrapped(2**63) == -(2**63) and wrapped(-(2**63) - 1) == 2**63 - 1 and wrapped(-5) == -5
    assert 0x9E3779B97F4A7C1 * 0xBF58476D1CE4E5B9 > 2**64


def pairs(size: int) -> torch.Tensor:
    """Every pair of tokens below size, as documents of two."""
    return torch.cartesian_prod(torch.arange(size), torch.arange(size))


@pytest.mark.parametrize("size", [1024, 1000, 997])
def test_bigrams_spread_over_the_slots_as_by_chance(size):
    """Of 10,000 balls thrown into so many urns: the statistic of Pearson is near its degrees of freedom."""
    slots = ngram_slots(pairs(100), 2, 4, size)[:, 1]
    for which in range(4):
        counts = slots[:, which].bincount(minlength=size).double()
        expected = len(slots) / size
        chi_square = ((counts - expected).square() / expected).sum().item()
        assert abs(chi_square - (size - 1)) < 5 * (2 * (size - 1)) ** 0.5


def test_the_hashes_of_one_layer_are_independent():
    """Bigrams that meet in one hash are spread by the others."""
    slots = ngram_slots(pairs(100), 2, 2, 1024)[:, 1]
    both = (slots[:, 0] * 1024 + slots[:, 1]).unique(return_counts=True)[1]
    collisions = int((both * (both - 1) // 2).sum())
    expected = 10_000 * 9_999 / 2 / 1024**2
    assert abs(collisions - expected) < 5 * expected**0.5


def test_order_counts_and_so_does_where_a_document_begins():
    slots = ngram_slots(torch.tensor([[1, 2, 0, 1], [2, 1, 0, 1]]), 2, 1, 2**31)[..., 0]
    assert slots[0, 1] != slots[1, 1]  # (1, 2) and (2, 1)
    assert slots[0, 3] == slots[1, 3]  # both (0, 1)
    assert slots[0, 0] != slots[0, 3]  # 1 at the beginning, and after 0


def test_a_table_of_one_token_and_one_hash_is_a_value_embedding():
    layer = drawn(NGram(n=1, num_slots=4096, hashes=1).build(site()))
    tokens, x = random_tokens(4, 9), torch.randn(4, 9, D_MODEL)
    out = layer(x, tokens)
    assert out.reads.weights.equal(torch.ones(4, 9, 1))
    assert out.hidden.equal(layer.pool.values[out.reads.slots[..., 0]])
    met = set(zip(tokens.flatten().tolist(), out.reads.slots.flatten().tolist(), strict=True))
    assert len(met) == tokens.unique().numel() == len({slot for _, slot in met})


def test_a_table_of_a_row_a_token_has_no_collisions():
    layer = drawn(NGram(n=1, num_slots=None, hashes=1).build(site()))
    tokens = random_tokens(4, 9)
    out = layer(torch.randn(4, 9, D_MODEL), tokens)
    assert layer.pool.values.shape == (NUM_TOKENS, D_MODEL) and out.reads.slots.equal(tokens[..., None])
    assert out.hidden.equal(layer.pool.values[tokens])


def test_reads_are_the_mean_of_one_row_a_hash():
    layer = drawn(NGram(n=3, num_slots=512, hashes=4).build(site()))
    out = layer(torch.randn(2, 5, D_MODEL), random_tokens(2, 5))
    assert out.reads.slots.shape == (2, 5, 4) and (out.reads.weights == 0.25).all()
    torch.testing.assert_close(out.hidden, layer.pool.values[out.reads.slots].mean(dim=2))


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_short_convolution_starts_as_the_identity_and_its_last_weight_is_the_tokens_own(width):
    layer, x = ShortConv(width).build(site()), torch.randn(2, 6, D_MODEL, generator=seeded())
    with torch.no_grad():
        layer.weight.zero_()
        assert layer(x).hidden.equal(x)
        layer.weight[:, -1] = 2.0
        torch.testing.assert_close(layer(x).hidden, 3 * x)
        layer.weight.zero_()[:, 0] = 1.0
        shifted = torch.cat([torch.zeros(2, width - 1, D_MODEL), x], dim=1)[:, :6]
        torch.testing.assert_close(layer(x).hidden, x + shifted)
