"""What Triton does to rows and to scores, by its interpreter, against the reference in float64 or float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import seeded

from memlayers import kernels
from memlayers.kernels import Unsupported
from memlayers.layers import product_keys, updates
from memlayers.layers.pool import weighted_read

pytest.importorskip("triton")
from memlayers.kernels import triton_look_up, triton_updates
from memlayers.kernels.triton_backward import backward_with_update

ROWS = 9


@settings(max_examples=40, deadline=None)
@given(
    reads=st.lists(st.integers(0, ROWS - 1), max_size=40),
    width=st.sampled_from([1, 5, 16]),
    chunk=st.sampled_from([1, 2, 3, 8, 64]),
    adagrad=st.booleans(),
)
def test_backward_moves_rows_as_a_step_on_their_gradient_would(reads, width, chunk, adagrad):
    """Whatever chunks cut apart: rows read once, by many, by all."""
    slots = torch.tensor(reads[: len(reads) // 2 * 2], dtype=torch.int64).view(-1, 2)
    generator = seeded()
    values = torch.randn(ROWS, width, generator=generator)
    weights = torch.rand(slots.shape, generator=generator)
    grad = torch.randn(len(slots), width, generator=generator)
    total = torch.rand(ROWS, 1, generator=generator)
    expected, sums = values.double().requires_grad_(), total.double()
    of_weights = weights.double().requires_grad_()
    weighted_read(expected, slots, of_weights, sparse=False).backward(grad.double())
    rows = slots.unique()
    if adagrad:
        updates.adagrad_rows(expected.detach(), sums, rows, expected.grad[rows], rate=0.5, eps=1e-8)
    else:
        updates.sgd_rows(expected.detach(), rows, expected.grad[rows], rate=0.5)
    got = backward_with_update(values, slots, weights, grad, total if adagrad else None, 0.5, 1e-8, chunk)
    torch.testing.assert_close(values.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total.double(), sums, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.double(), of_weights.grad, rtol=1e-5, atol=1e-5)


def test_rows_in_bfloat16_are_moved_by_sums_in_float32():
    slots, generator = torch.zeros(40, 4, dtype=torch.int64), seeded()
    weights, grad = torch.rand(40, 4, generator=generator), torch.randn(40, 8, generator=generator)
    values = torch.zeros(2, 8, dtype=torch.bfloat16)
    backward_with_update(values, slots, weights, grad, None, 1.0, 0.0)
    exact = -(weights.sum(dim=1, keepdim=True) * grad).sum(dim=0)
    torch.testing.assert_close(values[0].float(), exact, rtol=2**-7, atol=1e-3)  # the interpreter cuts what GPUs round
    assert not values[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rowwise", [True, False])
@pytest.mark.parametrize("width", [1, 24])
def test_steps_are_the_references(width, rowwise, dtype):
    generator, rows = seeded(), torch.tensor([0, 3, 8])
    values = torch.randn(ROWS, width, generator=generator).to(dtype)
    grad = torch.randn(3, width, generator=generator).to(dtype)
    mean = torch.randn(ROWS, width, generator=generator)
    square, total = torch.rand(ROWS, 1 if rowwise else width, generator=generator), torch.rand(ROWS, 1)
    found = []
    for own in (updates, triton_updates):
        table, first, second, sums = (one.clone() for one in (values, mean, square, total))
        own.adam_rows(table, first, second, rows, grad, rate=0.1, betas=(0.9, 0.99), eps=1e-8, step=3)
        own.adagrad_rows(table, sums, rows, grad, rate=0.1, eps=1e-8)
        own.sgd_rows(table, rows, grad, rate=0.1)
        found.append((table.float(), first, second, sums))
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, mine, **near)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), k=st.integers(1, 9), heads=st.integers(1, 2), seed=st.integers(0, 99))
def test_the_best_product_keys_are_those_of_all_pairs(n, k, heads, seed):
    k = min(k, n)
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(3, heads, 2, 4, generator=generator)
    keys = torch.randn(heads, 2, n, 4, generator=generator)
    half = product_keys.half_scores(query, keys)
    everything = (half[0][..., :, None] + half[1][..., None, :]).flatten(-2)  # (h, t, n * n)
    row, column = triton_look_up.best_pairs(half, k)
    torch.testing.assert_close(everything.gather(-1, row * n + column), everything.topk(k).values)
    assert all(len(set(one.tolist())) == k for one in (row * n + column).flatten(0, 1))


def test_a_look_up_has_the_references_slots_weights_and_gradients():
    generator, found = seeded(), []
    query, keys = torch.randn(5, 2, 2, 4, generator=generator), torch.randn(2, 2, 12, 4, generator=generator)
    upstream = torch.randn(5, 2, 3, generator=generator)
    for look_up in (product_keys.look_up, kernels.choose("triton").look_up):
        own = [one.clone().requires_grad_() for one in (query, keys, torch.ones(4), torch.ones(4))]
        slots, weights = look_up(own[0], own[1], own[2:], 3)
        found.append((slots, weights, *torch.autograd.grad((weights * upstream).sum(), own)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, mine)


@pytest.mark.parametrize(("n", "k"), [(8193, 8), (100, 65)])
def test_what_a_program_cannot_hold_is_refused(n, k):
    with pytest.raises(Unsupported, match=f"{n} keys a half and topk={k}; accepted: up to 8192 and 64"):
        triton_look_up.look_up(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, n, 2), None, k)


def test_rows_beyond_the_table_are_refused():
    with pytest.raises(Unsupported, match="rows from 0 to 9; accepted: 0 to 8"):
        triton_updates.sgd_rows(torch.zeros(ROWS, 2), torch.tensor([0, 9]), torch.zeros(2, 2), rate=1.0)
    with pytest.raises(Unsupported, match=r"values 2 x 4097; accepted: contiguous, rows of up to 4096"):
        triton_updates.sgd_rows(torch.zeros(2, 4097), torch.tensor([0]), torch.zeros(1, 4097), rate=1.0)
