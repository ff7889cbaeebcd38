"""The weighted read: what comes out, and which rows of the table get a gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import weighted_read as by_loops
from torch import Tensor
from torch.nn import functional as F

from memlayers.layers.pool import MemoryPool, weighted_read


@st.composite
def problems(draw) -> tuple[Tensor, Tensor, Tensor]:
    """values, slots, weights; few slots, so that bags often hold one twice, and some rows are never read."""
    tokens, reads, num_slots, width = (draw(st.integers(*range_)) for range_ in ((0, 5), (1, 6), (1, 9), (1, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return (
        torch.randn(num_slots, width, generator=generator),
        torch.randint(num_slots, (tokens, reads), generator=generator),
        torch.randn(tokens, reads, generator=generator),
    )


def gradients(problem: tuple[Tensor, Tensor, Tensor], upstream: Tensor, how: str) -> tuple[Tensor, Tensor]:
    values, slots, weights = problem
    values, weights = values.clone().requires_grad_(), weights.clone().requires_grad_()
    if how == "embedding_bag":
        read = F.embedding_bag(slots, values, per_sample_weights=weights.to(values.dtype), mode="sum")
    elif how == "loops":
        read = by_loops(values, slots, weights)
    else:
        read = weighted_read(values, slots, weights, sparse=how == "sparse")
    return torch.autograd.grad(read, (values, weights), upstream.to(read.dtype))


@given(problems())
def test_it_is_the_sum_by_loops(problem):
    for sparse in (True, False):
        torch.testing.assert_close(weighted_read(*problem, sparse=sparse), by_loops(*problem))


@given(problems())
def test_gradients_are_those_of_a_dense_bag_and_touch_no_other_row(problem):
    values, slots, _ = problem
    upstream = torch.randn(len(slots), values.shape[1])
    of_values, of_weights = gradients(problem, upstream, "sparse")
    wanted_values, wanted_weights = gradients(problem, upstream, "embedding_bag")
    assert of_values.is_sparse and of_values.is_coalesced() and of_values.shape == values.shape
    assert of_values.indices()[0].tolist() == sorted(set(slots.flatten().tolist()))
    torch.testing.assert_close(of_values.to_dense(), wanted_values)
    assert of_weights.equal(wanted_weights)
    dense_values, dense_weights = gradients(problem, upstream, "dense")
    assert dense_values.equal(wanted_values) and dense_weights.equal(wanted_weights)


def test_gradients_are_those_of_the_loops():
    problem = torch.randn(6, 3), torch.tensor([[1, 4, 4], [0, 1, 1]]), torch.randn(2, 3)
    upstream = torch.randn(2, 3)
    for how in ("sparse", "dense"):
        for got, wanted in zip(gradients(problem, upstream, how), gradients(problem, upstream, "loops"), strict=True):
            torch.testing.assert_close(got.to_dense(), wanted)


def test_a_slot_read_twice_by_one_token_counts_twice():
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0]], requires_grad=True)
    read = weighted_read(values, torch.tensor([[1, 1]]), torch.tensor([[0.25, 0.5]]))
    assert read.tolist() == [[1.5, 15.0]]
    read.backward(torch.tensor([[4.0, 8.0]]))
    assert values.grad._indices().tolist() == [[1]] and values.grad._values().tolist() == [[3.0, 6.0]]


@pytest.mark.parametrize("width", [1, 3, 16, 33])
def test_upstream_gradients_with_gaps_or_without_memory_of_their_own(width):
    problem = torch.randn(11, width), torch.randint(11, (6, 5)), torch.randn(6, 5)
    for upstream in (torch.ones(1, 1).expand(6, width), torch.randn(width, 6).T, torch.randn(6, 2 * width)[:, ::2]):
        for how in ("sparse", "dense"):
            for got, wanted in zip(
                gradients(problem, upstream, how), gradients(problem, upstream.contiguous(), how), strict=True
            ):
                torch.testing.assert_close(got.to_dense(), wanted.to_dense())


def test_gradient_of_the_weights_by_finite_differences():
    values, slots = torch.randn(7, 3, dtype=torch.float64), torch.randint(7, (4, 5))
    weights = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for sparse in (True, False):
        assert torch.autograd.gradcheck(
            lambda w, sparse=sparse: weighted_read(values, slots, w, sparse=sparse), weights
        )


def test_a_second_derivative_through_rows_is_refused_and_not_wrong():
    values = torch.randn(7, 3, requires_grad=True)
    weights = torch.randn(4, 5, requires_grad=True)
    loss = weighted_read(values, torch.randint(7, (4, 5)), weights).square().sum()
    (rows,) = torch.autograd.grad(loss, values, create_graph=True)
    with pytest.raises(RuntimeError):
        rows.to_dense().square().sum().backward()


def test_reads_may_have_any_axes_before_the_last():
    pool = MemoryPool(9, 5)
    torch.nn.init.normal_(pool.values)
    slots, weights = torch.randint(9, (2, 3, 4, 6)), torch.rand(2, 3, 4, 6)
    assert pool(slots, weights).flatten(0, 2).equal(weighted_read(pool.values, slots.view(24, 6), weights.view(24, 6)))
    assert pool(slots[:0], weights[:0]).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_table_in_bfloat16_is_read_into_the_dtype_of_the_weights(sparse):
    values, slots, weights = torch.randn(9, 5).bfloat16(), torch.randint(9, (6, 4)), torch.rand(6, 4)
    read = weighted_read(values, slots, weights, sparse=sparse)
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, by_loops(values.float(), slots, weights), rtol=2e-2, atol=2e-2)
    upstream = torch.randn(6, 5)
    of_values, of_weights = gradients((values, slots, weights), upstream, "sparse" if sparse else "dense")
    wanted_values, wanted_weights = gradients((values.float(), slots, weights), upstream, "loops")
    assert of_values.dtype == torch.bfloat16 and of_weights.dtype == torch.float32
    torch.testing.assert_close(of_values.to_dense().float(), wanted_values, rtol=3e-2, atol=3e-2)
    torch.testing.assert_close(of_weights, wanted_weights, rtol=3e-2, atol=5e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_reads_of_one_table_add_their_gradients(dtype):
    pool = MemoryPool(8, 3, dtype=dtype)
    torch.nn.init.normal_(pool.values)
    first, second = torch.tensor([[1, 2], [2, 5]]), torch.tensor([[2, 7]])
    (pool(first, torch.ones(2, 2)).sum() + pool(second, torch.full((1, 2), 2.0)).sum()).backward()
    rows = {1: 1.0, 2: 4.0, 5: 1.0, 7: 2.0}
    gradient = pool.values.grad.coalesce()
    assert gradient.indices()[0].tolist() == list(rows)
    assert gradient.values().tolist() == [[value] * 3 for value in rows.values()]


def test_a_frozen_table_gets_no_gradient_but_its_weights_do():
    values, slots = torch.randn(7, 3), torch.randint(7, (4, 5))
    weights = torch.randn(4, 5, requires_grad=True)
    weighted_read(values, slots, weights).sum().backward()
    torch.testing.assert_close(weights.grad, values[slots].sum(dim=-1))
    with torch.no_grad():
        assert not weighted_read(values, slots, weights).requires_grad
