"""Faster versions of functions in layers/, with the same signatures, chosen here and nowhere else."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from memlayers.kernels import build, look_up, reads, updates
from memlayers.kernels.checks import Unsupported
from memlayers.layers import pool, product_keys
from memlayers.layers import updates as reference_updates


def identity(table: Tensor) -> Tensor:
    """Return the table unchanged, where there are no huge pages to ask for."""
    return table


@dataclass(frozen=True)
class Kernels:
    """One implementation of each replaceable function."""

    look_up: Callable[..., Any] = product_keys.look_up
    weighted_read: Callable[..., Any] = pool.weighted_read
    adam_rows: Callable[..., None] = reference_updates.adam_rows
    adagrad_rows: Callable[..., None] = reference_updates.adagrad_rows
    sgd_rows: Callable[..., None] = reference_updates.sgd_rows
    huge_pages: Callable[[Tensor], Tensor] = identity


REFERENCE = Kernels()
IN_C = Kernels(
    look_up.look_up, reads.weighted_read, updates.adam_rows, updates.adagrad_rows, updates.sgd_rows, updates.huge_pages
)


@dataclass(frozen=True)
class Faster:
    """A replaceable function in C, and on a GPU in Triton. For tensors that it does not support, choice "auto" falls
    back to the reference; other choices raise ValueError.
    """

    choice: str
    name: str
    in_c: Callable[..., Any] | None = None
    in_triton: Callable[..., Any] | None = None
    used: set[str] = field(default_factory=set)  # native, triton, reference: implementations of the calls so far

    def __deepcopy__(self, memo: dict[int, Any]) -> "Faster":
        """Itself, as any function: copies of a model note what they call in one place."""
        return self

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        if settings.get("sparse", True):  # a read with a dense gradient is the reference's
            first = next(iter((*arguments, *settings.values())))
            on_gpu = self.in_triton and (first.is_cuda or not self.in_c)
            function = self.in_triton if on_gpu else self.in_c
            assert function is not None  # `choose` makes one of these only where there is C or Triton
            try:
                out = function(*arguments, **settings)
                self.used.add("triton" if on_gpu else "native")
                return out
            except Unsupported as error:
                if self.choice != "auto":
                    raise ValueError(f"kernels={self.choice}: {error}, or kernels=auto") from None
                _notice(str(error))
        self.used.add("reference")
        return getattr(REFERENCE, self.name)(*arguments, **settings)


def choose(choice: str) -> Kernels:
    """The kernels of a `kernels=` setting: reference; native (C); triton (for a GPU); auto (the fastest available).

    Raises ValueError for another choice, if native cannot be built, and if triton is not installed; auto then warns
    once and takes the reference. The same holds for tensors that a kernel does not support: native and triton raise
    ValueError when called, auto warns once.
    """
    if choice == "reference":
        return REFERENCE
    if choice not in ("auto", "native", "triton"):
        raise ValueError(f"kernels={choice!r} is not known; accepted: auto, native, reference, triton")
    in_c = _in_c(choice) if choice != "triton" else None
    in_triton = _in_triton(choice) if choice != "native" else None
    if not in_c and not in_triton:
        return REFERENCE
    names = [field.name for field in fields(Kernels) if field.name != "huge_pages"]
    functions = {
        name: Faster(choice, name, getattr(in_c, name, None), getattr(in_triton, name, None)) for name in names
    }
    return Kernels(**functions, huge_pages=in_c.huge_pages if in_c else identity)


def _in_c(choice: str) -> Kernels | None:
    try:
        build.library()
    except OSError as error:
        if choice == "native":
            raise ValueError(f"kernels=native: {error}; accepted: reference, auto") from None
        _notice(str(error))
        return None
    return IN_C


def _in_triton(choice: str) -> Kernels | None:
    """The Triton functions, or None; for auto only with a GPU, as importing triton takes a second."""
    if choice == "auto" and not torch.cuda.is_available():
        return None
    try:
        from memlayers.kernels import triton_look_up, triton_reads, triton_updates  # not above: triton is an extra
    except ImportError as error:
        if choice == "triton":
            raise ValueError(f"kernels=triton: no triton ({error}); accepted: native, reference, auto") from None
        _notice(f"no triton ({error})")
        return None
    modules = triton_look_up.look_up, triton_reads.weighted_read
    return Kernels(*modules, triton_updates.adam_rows, triton_updates.adagrad_rows, triton_updates.sgd_rows)


def implementations_used(kernels: Kernels) -> dict[str, str]:
    """Which implementations a run used, for each replaceable function that it called: {"look_up": "native", ...}.

    "native, reference" for a function that fell back in some of its calls. Functions without a faster version are left
    out.
    """
    functions = {field.name: getattr(kernels, field.name) for field in fields(Kernels) if field.name != "huge_pages"}
    faster = {name: function for name, function in functions.items() if isinstance(function, Faster)}
    return {name: ", ".join(sorted(function.used)) for name, function in faster.items() if function.used}


@contextmanager
def by_reference(model: nn.Module) -> Iterator[None]:
    """Context in which a model computes with the reference implementations, on any device."""
    replaced = [
        (module, key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, Faster)
    ]
    for module, key, faster in replaced:
        setattr(module, key, getattr(REFERENCE, faster.name))
    try:
        yield
    finally:
        for module, key, faster in replaced:
            setattr(module, key, faster)


def selected_implementation(choice: str, on_gpu: bool = False) -> str:
    """What `kernels=` selects on a device for tensors that it supports: reference, native or triton."""
    chosen = choose(choice).weighted_read
    if not isinstance(chosen, Faster):
        return "reference"
    if chosen.in_triton and (on_gpu or not chosen.in_c):
        return "triton"
    return "reference" if on_gpu else "native"


@cache
def _notice(why: str) -> None:
    warnings.warn(f"kernels=auto: {why}; taking the reference", stacklevel=3)
