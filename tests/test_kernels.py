"""The kernel in C: the same numbers as the reference, and one line where it cannot be had."""

import os
import shutil
import warnings

import pytest
import torch

from memlayers import kernels
from memlayers.kernels import native
from memlayers.layers import product_keys


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """No kernel is loaded or built, before the test and after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path
    native.library.cache_clear()


@pytest.fixture
def compiled():
    try:
        return native.library()
    except OSError as error:
        pytest.skip(str(error))


def compiler(folder, body: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (64, 1), (32, 32), (64, 32), (128, 8)])
def test_same_digits_as_the_reference_forward_and_backward(compiled, n, k):
    made = []
    for choice in ("reference", "native", "auto"):
        generator = torch.Generator().manual_seed(0)
        query = torch.randn(50, 4, 2, 8, generator=generator).requires_grad_()
        keys = torch.randn(4, 2, n, 8, generator=generator).requires_grad_()
        scores, slots = kernels.product_key_topk(choice)(query, keys, k)
        scores.square().sum().backward()
        made.append((scores, slots, query.grad, keys.grad))
    for other in made[1:]:
        assert all(mine.equal(theirs) for mine, theirs in zip(made[0], other, strict=True))


def test_auto_takes_the_reference_for_what_the_kernel_cannot_do(compiled):
    query, keys = torch.randn(3, 2, 2, 4), torch.randn(2, 2, 9, 4)
    auto = kernels.product_key_topk("auto")
    for dtype in (torch.float64, torch.bfloat16):
        wanted = product_keys.product_key_topk(query.to(dtype), keys.to(dtype), 3)
        assert all(got.equal(one) for got, one in zip(auto(query.to(dtype), keys.to(dtype), 3), wanted, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert auto(query, keys, 3)[0].dtype == torch.bfloat16
    assert auto(query, keys, 3)[0].dtype == torch.float32


def test_native_refuses_what_it_cannot_do_in_one_line(compiled):
    query, keys = torch.randn(3, 2, 2, 4, dtype=torch.float64), torch.randn(2, 2, 9, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^kernels=native: torch.float64 on cpu; accepted: [^\n]*$"):
        kernels.product_key_topk("native")(query, keys, 3)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"^kernels=native: autocast on cpu; "):
        kernels.product_key_topk("native")(query.float(), keys.float(), 3)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "No such file or directory"),
        ("echo 'select.c:1: first complaint' >&2; echo 'second line' >&2; exit 1", "first complaint"),
        ("exit 1", "could not compile the kernel"),
        ('while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"', "select-"),
    ],
    ids=["missing", "complains", "silent", "makes rubbish"],
)
def test_without_a_working_compiler_auto_gives_notice_and_native_stops(fresh, monkeypatch, body, said):
    monkeypatch.setenv("CC", str(fresh / "missing") if body is None else compiler(fresh, body))
    with pytest.warns(UserWarning, match=said) as notices:
        chosen = kernels.product_key_topk("auto")
    assert chosen is product_keys.product_key_topk
    assert len(notices) == 1 and "\n" not in str(notices[0].message)
    assert str(notices[0].message).startswith("kernels=auto: ")
    with pytest.raises(ValueError, match=said) as stopped:
        kernels.product_key_topk("native")
    assert "\n" not in str(stopped.value) and "accepted: reference, auto" in str(stopped.value)


def test_reference_asks_for_no_compiler(fresh, monkeypatch):
    monkeypatch.setenv("CC", str(fresh / "missing"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.product_key_topk("reference") is product_keys.product_key_topk
    assert not list(fresh.iterdir())


def test_it_is_built_once_and_kept_and_a_broken_cache_folder_is_one_line(compiled, fresh, monkeypatch):
    native.library()
    (built,) = (fresh / "memlayers").iterdir()
    made = built.stat().st_mtime_ns
    native.library.cache_clear()
    native.library()
    assert [path.stat().st_mtime_ns for path in (fresh / "memlayers").iterdir()] == [made]
    native.library.cache_clear()
    (fresh / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    with pytest.raises(ValueError, match=r"^kernels=native: [^\n]*$"):
        kernels.product_key_topk("native")


def test_a_compiler_may_be_named_with_its_options(compiled, fresh, monkeypatch):
    named = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    monkeypatch.setenv("CC", f"{named} -DNOTHING")
    query, keys = torch.randn(3, 2, 2, 4), torch.randn(2, 2, 9, 4)
    wanted = product_keys.product_key_topk(query, keys, 3)
    got = kernels.product_key_topk("native")(query, keys, 3)
    assert all(one.equal(other) for one, other in zip(got, wanted, strict=True))
