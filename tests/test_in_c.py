"""The kernels in C give the numbers of the reference."""

import platform

import pytest
import torch
from contract import RULES
from stubs import seeded
from torch import Tensor, nn

from memlayers import kernels
from memlayers.kernels import build


def look_up(choice: str, tokens: int, n: int, k: int, width: int, largest: int = 2**14) -> tuple[Tensor, ...]:
    """Weights, slots in ascending order, and gradients, of numbers whose sums are exact in any order.

    So are the scaled ones, if the width is a power of 4. Queries and keys come with gaps in their memory. Few slots
    have equal scores if largest is large.
    """
    generator = seeded()
    query = torch.randint(-4, 5, (tokens, 2, 4, width), generator=generator).float().transpose(1, 2)
    keys = torch.randint(-largest, largest + 1, (4, 2, width, n), generator=generator).transpose(2, 3) / largest
    query, keys = query.detach().requires_grad_(), keys.detach().requires_grad_()
    slots, weights = kernels.choose(choice).look_up(query, keys, None, k)
    upstream = (0.37 * slots).sin()  # of the slot, not of its rank: equal scores may come in any order
    return weights, slots.sort(dim=-1).values, *torch.autograd.grad(weights, (query, keys), upstream)


@pytest.mark.parametrize("tokens", [0, 1, 50])
@pytest.mark.parametrize(
    ("n", "k", "width"),
    [
        (1, 1, 1),
        (32, 8, 4),
        (64, 1, 16),
        (33, 32, 4),
        (96, 8, 16),
        (129, 64, 16),
        (130, 8, 64),
        (300, 32, 4),
        (600, 256, 16),
    ],
)
def test_the_search_is_the_references_forward_and_backward(compiled, threads, tokens, n, k, width):
    wanted, got = (look_up(choice, tokens, n, k, width) for choice in ("reference", "native"))
    assert got[1].equal(wanted[1])
    torch.testing.assert_close(got[0], wanted[0])
    for mine, theirs in zip(got[2:], wanted[2:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "k"), [(33, 32), (96, 8), (600, 9)])
def test_of_ties_the_search_finds_as_many_and_the_lower_keys(compiled, n, k):
    wanted, got = (look_up(choice, 20, n, k, 4, largest=1) for choice in ("reference", "native"))
    torch.testing.assert_close(got[0], wanted[0])
    for row in got[1].flatten(0, 1):
        assert len(set(row.tolist())) == k
    flat = torch.zeros(3, 1, 2, 4), torch.ones(1, 2, n, 4)
    assert kernels.choose("native").look_up(*flat, None, k)[0].unique(dim=-1).shape[-1] == k


@pytest.mark.parametrize(("n", "k"), [(5, 3), (40, 8), (40, 20), (97, 13), (150, 40), (300, 8)])
def test_of_equal_half_scores_the_lower_key_comes_first_and_of_equal_sums_the_better_row(compiled, n, k):
    generator = seeded()
    query = torch.randint(-2, 3, (20, 1, 2, 4), generator=generator).float()
    keys = torch.randint(-2, 3, (1, 2, n, 4), generator=generator).float()
    slots, weights = kernels.choose("native").look_up(query, keys, None, k)
    for token, slot, weight in zip(query[:, 0], slots[:, 0], weights[:, 0], strict=True):
        rows, columns = (
            sorted(((-float(half @ key), index) for index, key in enumerate(own)))
            for half, own in zip(token, keys[0], strict=True)
        )
        pairs = [(r[0] + c[0], a, b, r[1] * n + c[1]) for a, r in enumerate(rows) for b, c in enumerate(columns)]
        wanted = sorted(pairs)[:k]
        assert slot.tolist() == [pair[-1] for pair in wanted]
        torch.testing.assert_close(weight, torch.tensor([-pair[0] / 2 for pair in wanted]).softmax(dim=0))


@pytest.mark.parametrize("width", [2, 7, 8, 20, 64, 72])
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_norms_and_softmaxes_are_the_references_forward_and_backward(compiled, threads, heads, width):
    """Of more tokens and keys than the gains' gradients are summed at a time, and of a remainder."""
    generator = seeded()
    query = 3 * torch.randn(2, heads, width, 300, generator=generator).permute(3, 1, 0, 2)
    keys = 3 * torch.randn(heads, width, 2, 190, generator=generator).permute(0, 2, 3, 1)
    inputs = [query, keys, *(torch.rand(2, width, generator=generator) + 0.5)]

    def own(choice: str) -> tuple[list[Tensor], Tensor, Tensor]:
        mine = [x.detach().requires_grad_() for x in inputs]
        return mine, *kernels.choose(choice).look_up(mine[0], mine[1], mine[2:], 5)

    (got, slots, weights), (wanted, their_slots, their_weights) = own("native"), own("reference")
    torch.testing.assert_close(weights, their_weights, rtol=1e-5, atol=1e-5)
    same = (slots.sort(dim=-1).values == their_slots.sort(dim=-1).values).all(dim=-1, keepdim=True)
    assert same.float().mean() > 0.995  # in the rest the last of the best is as good as the next but for rounding
    ours = torch.autograd.grad(weights, got, (0.37 * slots).sin() * same)
    theirs = torch.autograd.grad(their_weights, wanted, (0.37 * their_slots).sin() * same)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [96, 300])
def test_a_nan_is_seen_and_does_not_hang_the_search(compiled, n):
    query, keys = torch.randn(3, 1, 2, 4), torch.randn(1, 2, n, 4)
    query[1] = float("nan")
    query[2] = float("inf")
    slots, weights = kernels.choose("native").look_up(query, keys, None, 8)
    assert not weights[1].isfinite().any() and weights[0].isfinite().all()
    assert ((slots >= 0) & (slots < n**2)).all()


def read(choice: str, dtype: torch.dtype, tokens: int, width: int) -> tuple[Tensor, ...]:
    generator = seeded()
    values = torch.randn(50, width, generator=generator).to(dtype).requires_grad_()
    slots = torch.randint(50, (9, tokens), generator=generator).T  # with gaps, and with a slot twice in a bag
    weights = torch.rand(9, tokens, generator=generator).T.detach().requires_grad_()
    out = kernels.choose(choice).weighted_read(values, slots, weights)
    upstream = torch.randn(width, tokens, generator=generator).T
    to_values, to_weights = torch.autograd.grad(out, (values, weights), upstream)
    assert to_values.is_sparse and to_values.dtype == dtype
    return out, to_values.coalesce().indices(), to_values.coalesce().values(), to_weights


@pytest.mark.parametrize("tokens", [0, 1, 40])
@pytest.mark.parametrize("width", [1, 20, 32, 48, 64, 128, 256, 272])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_read_is_the_references_forward_and_backward(compiled, threads, dtype, tokens, width):
    wanted, got = (read(choice, dtype, tokens, width) for choice in ("reference", "native"))
    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 6e-2}
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, **near)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of gcc for x86")
@pytest.mark.parametrize("narrower", ["-mno-avx512f", "-mno-avx2"])
def test_on_narrower_vectors_the_digits_are_the_same(compiled, fresh, monkeypatch, narrower):
    """Of reads whose rows are whole sixteens, and of lookups of numbers that are exact; tokens fill no vector."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    cases = [lambda: read("native", torch.float32, 40, 48), lambda: look_up("native", 37, 40, 9, 16)]
    wanted = [case() for case in cases]
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh))
    monkeypatch.setenv("CC", f"cc {narrower}")
    build.library.cache_clear()
    for case, theirs in zip(cases, wanted, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(case(), theirs, strict=True))


def test_reads_are_sorted_in_tables_of_any_size(compiled):
    """One, two and three passes of the sort; the rows come back in order, each once."""
    for num_slots in (1, 2, 2**14, 2**14 + 1, 2**24, 2**28 + 1):  # memory that is not touched is not taken
        slots = torch.randint(num_slots, (300, 7))
        slots[0, 0], slots[0, 1] = num_slots - 1, 0
        values = torch.nn.Parameter(torch.zeros(num_slots, 1))
        weights = torch.ones(300, 7)
        kernels.choose("native").weighted_read(values, slots, weights).sum().backward()
        rows, counts = slots.unique(return_counts=True)
        assert values.grad._indices()[0].equal(rows) and values.grad._values()[:, 0].equal(counts.float())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("width", [1, 5, 20, 48, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fifty_steps_are_the_references(compiled, threads, rule, width, dtype):
    ended = []
    for choice in ("reference", "native"):
        generator = seeded()
        values = nn.Parameter(torch.randn(20, width, generator=generator).to(dtype))
        optimizer = rule.build([values], kernels.choose(choice))
        for step in range(50):
            rows = torch.randint(20, (step % 7,), generator=generator)  # none, some, and some twice
            grad = torch.randn(len(rows), width, generator=generator).to(dtype)
            values.grad = torch.sparse_coo_tensor(rows[None], grad, values.shape, check_invariants=True)
            optimizer.step()
        ended.append((values.detach(), *(one for one in optimizer.state[values].values() if isinstance(one, Tensor))))
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 5e-2, "atol": 5e-2}
    for mine, theirs in zip(*ended, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, **near)


def test_rows_of_another_dtype_are_refused_and_not_read_as_numbers_of_64_bits(compiled):
    values, rows, grad = torch.randn(5, 4), torch.tensor([1, 3], dtype=torch.int32), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"^kernels=native: rows of torch.int32 on cpu; accepted: torch.int64 on cpu"):
        kernels.choose("native").sgd_rows(values, rows, grad, rate=1.0)
