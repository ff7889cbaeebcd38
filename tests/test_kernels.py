"""The kernels in C: the same numbers as the reference, and one line where they cannot be had."""

import copy
import os
import pickle
import platform
import shutil
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memlayers import kernels
from memlayers.config import MemoryConfig, ModelConfig
from memlayers.kernels import build
from memlayers.optim.rows import LazyAdam, LazySGD, RowOptimizer, RowwiseAdagrad
from memlayers.model import build_model


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """No kernel is loaded or built, and no notice was given, before the test and after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    kernels._notice.cache_clear()
    yield tmp_path
    build.library.cache_clear()
    kernels._notice.cache_clear()


@pytest.fixture
def compiled():
    try:
        return build.library()
    except OSError as error:
        pytest.skip(str(error))


def compiler(folder, body: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def look_up(choice: str, tokens: int, n: int, k: int, width: int, largest: int = 2**14) -> tuple[Tensor, ...]:
    """Weights, slots in ascending order, and gradients, of numbers whose sums are exact in any order.

    So are the scaled ones, if the width is a power of 4. Queries and keys come with gaps in their memory. Few slots
    have equal scores if largest is large.
    """
    generator = torch.Generator().manual_seed(0)
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
    generator = torch.Generator().manual_seed(0)
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
    generator = torch.Generator().manual_seed(0)
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
    generator = torch.Generator().manual_seed(0)
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


def optimizers(values: nn.Parameter, choice: str) -> dict[str, RowOptimizer]:
    chosen = kernels.choose(choice)
    return {
        "lazy_adam": LazyAdam([values], 0.1, (0.9, 0.99), 1e-8, kernels=chosen),
        "rowwise_adam": LazyAdam([values], 0.1, (0.9, 0.99), 1e-8, rowwise=True, kernels=chosen),
        "rowwise_adagrad": RowwiseAdagrad([values], 0.1, 1e-8, chosen),
        "sgd": LazySGD([values], 0.1, chosen),
    }


@pytest.mark.parametrize("rule", ["lazy_adam", "rowwise_adam", "rowwise_adagrad", "sgd"])
@pytest.mark.parametrize("width", [1, 5, 20, 48, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fifty_steps_are_the_references(compiled, threads, rule, width, dtype):
    ended = []
    for choice in ("reference", "native"):
        generator = torch.Generator().manual_seed(0)
        values = nn.Parameter(torch.randn(20, width, generator=generator).to(dtype))
        optimizer = optimizers(values, choice)[rule]
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


@pytest.mark.parametrize("name", ["memory", "memory_plus"])
def test_a_model_has_the_references_loss_and_gradients(compiled, threads, name):
    config = ModelConfig(MemoryConfig(name=name, num_keys=40, heads=2, topk=8, d_key=8), blocks="all")
    found = []
    for choice in ("reference", "native"):
        model = build_model(config, 50, torch.Generator().manual_seed(0), kernels.choose(choice))
        loss = model(torch.arange(48).view(6, 8)).logits.square().mean()
        loss.backward()
        grads = {name: p.grad.to_dense() if p.grad.is_sparse else p.grad for name, p in model.named_parameters()}
        found.append({"loss": loss} | grads)
    for key, theirs in found[0].items():
        torch.testing.assert_close(found[1][key], theirs, rtol=1e-4, atol=1e-6, msg=key)


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
def test_what_it_cannot_take_stops_native_in_one_line_and_auto_says_so_once(compiled, fresh, case):
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


def test_what_would_leave_the_table_is_refused_and_the_reference_says_why(compiled, fresh):
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
    LazySGD([values], 0.1, chosen).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        read.sum().backward()


@pytest.mark.parametrize("choice", ["reference", "auto"])
def test_models_and_optimizers_can_be_pickled_and_go_on(choice):
    config = ModelConfig(MemoryConfig(num_keys=8, heads=2, topk=2, d_key=8), blocks="all")
    model = build_model(config, 50, torch.Generator().manual_seed(0), kernels.choose(choice))
    optimizer = optimizers(model.pools[0].values, choice)["rowwise_adam"]
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


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "No such file or directory"),
        ("echo 'look_up.c:1: first complaint' >&2; echo 'second line' >&2; exit 1", "first complaint"),
        ("echo 'In file included from a.c:1,' >&2; echo 'a.h:2:1: error: no such type' >&2; exit 1", "no such type"),
        ("echo 'ld: cannot find -lm' >&2; echo 'collect2: error: ld returned 1' >&2; exit 1", "cannot find"),
        ("exit 1", "could not compile the kernels"),
        ('while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"', "kernels-"),
    ],
    ids=["missing", "complains", "includes", "does not link", "silent", "makes rubbish"],
)
def test_without_a_working_compiler_auto_gives_notice_and_native_stops(fresh, monkeypatch, body, said):
    monkeypatch.setenv("CC", str(fresh / "missing") if body is None else compiler(fresh, body))
    with pytest.warns(UserWarning, match=said) as notices:
        assert kernels.choose("auto") is kernels.REFERENCE
    assert len(notices) == 1 and "\n" not in str(notices[0].message)
    assert str(notices[0].message).startswith("kernels=auto: ")
    with pytest.raises(ValueError, match=said) as stopped:
        kernels.choose("native")
    assert "\n" not in str(stopped.value) and "accepted: reference, auto" in str(stopped.value)


def test_reference_asks_for_no_compiler(fresh, monkeypatch):
    monkeypatch.setenv("CC", str(fresh / "missing"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.choose("reference") is kernels.REFERENCE
    assert not list(fresh.iterdir())


def test_it_is_built_once_and_kept_and_a_broken_cache_folder_is_one_line(compiled, fresh, monkeypatch):
    build.library()
    (built,) = (fresh / "memlayers").iterdir()
    made = built.stat().st_mtime_ns
    build.library.cache_clear()
    build.library()
    assert [path.stat().st_mtime_ns for path in (fresh / "memlayers").iterdir()] == [made]
    build.library.cache_clear()
    (fresh / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    with pytest.raises(ValueError, match=r"^kernels=native: [^\n]*$"):
        kernels.choose("native")


def test_a_compiler_may_be_named_with_its_options(compiled, fresh, monkeypatch):
    named = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    monkeypatch.setenv("CC", f"{named} -DNOTHING")
    assert kernels.in_use("native") == "native" and len(list((fresh / "memlayers").iterdir())) == 1


def test_without_openmp_it_is_built_for_one_thread(compiled, fresh, monkeypatch):
    named = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    body = f'for word in "$@"; do if [ "$word" = -fopenmp ]; then exit 1; fi; done; exec {named} "$@"'
    monkeypatch.setenv("CC", compiler(fresh, body))
    wanted, got = (look_up(choice, 50, 96, 8, 16) for choice in ("reference", "native"))
    assert got[1].equal(wanted[1])
