"""The search for the best of n * n slots against scoring all of them, in Python and, where it compiles, in C."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from naive import all_scores
from torch import Tensor

from memlayers import kernels
from memlayers.kernels import build
from memlayers.layers.product_keys import product_key_topk, staircase


@pytest.fixture(scope="module", params=["reference", "native"])
def look_up(request):
    if request.param == "native":
        try:
            build.library()
        except OSError as error:
            pytest.skip(str(error))
    return kernels.choose(request.param).look_up


@pytest.fixture(scope="module", params=["alone", "in look_up"])
def search(request, look_up):
    """(query, keys, k) -> slots and scores: the reference's own, and those behind what look_up returns."""
    if request.param == "alone":
        return product_key_topk

    def behind(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
        slots, _ = look_up(query, keys, None, k)
        return slots, all_scores(query, keys).gather(-1, slots)

    return behind


@st.composite
def integer_problems(draw, least_tokens: int = 0) -> tuple[Tensor, Tensor, int]:
    """Small integers: sums are exact in float32, and many slots have equal scores."""
    tokens, heads, n, width = (
        draw(st.integers(low, high)) for low, high in ((least_tokens, 3), (1, 3), (1, 6), (1, 3))
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    largest = draw(st.integers(0, 3))  # 0: all scores are equal

    def integers(*shape: int) -> Tensor:
        return torch.randint(-largest, largest + 1, shape, generator=generator).float()

    return integers(tokens, heads, 2, width), integers(heads, 2, n, width), draw(st.integers(1, n))


@given(problem=integer_problems())
def test_the_k_best_of_all_slots_with_any_ties(search, problem):
    query, keys, k = problem
    slots, scores = search(query, keys, k)
    every = all_scores(query, keys)
    assert scores.shape == slots.shape == (len(query), len(keys), k) and slots.dtype == torch.int64
    assert scores.equal(every.sort(dim=-1, descending=True).values[..., :k])
    assert scores.equal(every.gather(-1, slots))
    assert all(len(set(row)) == k for row in slots.flatten(0, 1).tolist())


@given(problem=integer_problems(least_tokens=1))
def test_gradients_are_those_of_scoring_all_slots(problem):
    query, keys, k = problem
    upstream = torch.arange(1, k + 1).float()
    mine, theirs = ([x.clone().requires_grad_() for x in (query, keys)] for _ in range(2))
    slots, scores = product_key_topk(*mine, k)
    (scores * upstream).sum().backward()
    (all_scores(*theirs).gather(-1, slots) * upstream).sum().backward()
    for got, wanted in zip(mine, theirs, strict=True):
        assert got.grad.equal(wanted.grad)


@given(problem=integer_problems(least_tokens=1))
def test_weights_are_the_softmax_of_all_slots_scores_and_so_are_their_gradients(look_up, problem):
    query, keys, k = problem
    upstream = torch.arange(1, k + 1).float()
    mine, theirs = ([x.clone().requires_grad_() for x in (query, keys)] for _ in range(2))
    slots, weights = look_up(*mine, None, k)
    (weights * upstream).sum().backward()
    wanted = (all_scores(*theirs) * query.shape[-1] ** -0.5).gather(-1, slots).softmax(dim=-1)
    (wanted * upstream).sum().backward()
    torch.testing.assert_close(weights, wanted)
    for got, own in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got.grad, own.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 1), (7, 7), (33, 32), (40, 8)])
def test_real_scores(search, n, k):
    query, keys = torch.randn(2, 1, 2, 4), torch.randn(1, 2, n, 4)
    slots, scores = search(query, keys, k)
    wanted = all_scores(query, keys).topk(k, dim=-1)
    torch.testing.assert_close(scores, wanted.values)
    assert slots.equal(wanted.indices)


def test_input_with_gaps_in_memory(search):
    query, keys = torch.randn(2, 2, 4, 9).permute(3, 0, 1, 2), torch.randn(3, 6, 2, 2).permute(3, 2, 1, 0)[..., ::2]
    assert not query.is_contiguous() and not keys.is_contiguous()
    query = query[..., :2]
    for got, wanted in zip(search(query, keys, 3), search(query.contiguous(), keys.contiguous(), 3), strict=True):
        assert got.equal(wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_come_out_as_they_do_from_all_slots(search, bad):
    """A diverged model must not look healthy: NaN ranks above everything, as in torch.topk."""
    query, keys = torch.ones(1, 1, 2, 1), torch.tensor([0.5, bad, -1.0, 2.0, 0.0, 1.0, -3.0, 1.5]).view(1, 2, 4, 1)
    for k in (1, 2, 4):
        slots, scores = search(query, keys, k)
        every = all_scores(query, keys)
        torch.testing.assert_close(scores, every.topk(k, dim=-1).values, equal_nan=True)
        torch.testing.assert_close(scores, every.gather(-1, slots), equal_nan=True)
        assert slots.unique().numel() == k


def test_a_table_of_nothing_but_nan_still_gives_distinct_slots(search):
    slots, scores = search(torch.ones(2, 1, 2, 1), torch.full((1, 2, 5, 1), float("nan")), 5)
    assert scores.isnan().all() and all(row.unique().numel() == 5 for row in slots.flatten(0, 1))
    assert slots.min() >= 0 and slots.max() < 25


@given(st.integers(1, 40))
def test_the_staircase_is_every_pair_of_ranks_that_fewer_than_k_others_beat(k):
    rows, columns = staircase(k, torch.device("cpu"))
    wanted = {(a, b) for a in range(k) for b in range(k) if (a + 1) * (b + 1) <= k}
    got = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert set(got) == wanted and len(got) == len(wanted)
