"""The kernels are compiled once, when they are first needed, and one line says why where they cannot be."""

import os
import shutil
import warnings

import pytest
import torch
from stubs import seeded

from memlayers import kernels
from memlayers.kernels import build


def compiler(folder, body: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


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
    assert kernels.selected_implementation("native") == "native" and len(list((fresh / "memlayers").iterdir())) == 1


def test_without_openmp_it_is_built_for_one_thread(compiled, fresh, monkeypatch):
    named = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    body = f'for word in "$@"; do if [ "$word" = -fopenmp ]; then exit 1; fi; done; exec {named} "$@"'
    monkeypatch.setenv("CC", compiler(fresh, body))
    query, keys = torch.randn(50, 2, 2, 16, generator=seeded()), torch.randn(2, 2, 96, 16, generator=seeded(1))
    wanted, got = (kernels.choose(choice).look_up(query, keys, None, 8) for choice in ("reference", "native"))
    assert got[0].equal(wanted[0]) and len(list((fresh / "memlayers").iterdir())) == 1
