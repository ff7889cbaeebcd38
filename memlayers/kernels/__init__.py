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


def leave(table: Tensor) -> Tensor:
    """The table as it is."""
    return table


@dataclass(frozen=True)
class Kernels:
    """One implementation of each function that decides how fast a memory layer is."""

    look_up: Callable[..., Any] = product_keys.look_up
    weighted_read: Callable[..., Any] = pool.weighted_read
    adam_rows: Callable[..., None] = reference_updates.adam_rows
    adagrad_rows: Callable[..., None] = reference_updates.adagrad_rows
    sgd_rows: Callable[..., None] = reference_updates.sgd_rows
    huge_pages: Callable[[Tensor], Tensor] = leave


REFERENCE = Kernels()
IN_C = Kernels(
    look_up.look_up,
    reads.weighted_read,
    updates.adam_rows,
    updates.adagrad_rows,
    updates.sgd_rows,
    updates.huge_pages,
)


@dataclass(frozen=True)
class Faster:
    """The function of this name in C, and on a GPU in Triton; for tensors that it cannot take an error, or by auto the
    reference.
    """

    choice: str
    name: str
    in_c: Callable[..., Any] | None = None
    in_triton: Callable[..., Any] | None = None
    ran: set[str] = field(default_factory=set)  # native, triton, reference: what the calls ran

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        if settings.get("sparse", True):  # a read with a dense gradient is the reference's
            first = next(iter((*arguments, *settings.values())))
            on_gpu = self.in_triton and (first.is_cuda or not self.in_c)
            function = self.in_triton if on_gpu else self.in_c
            assert function is not None  # `choose` makes one of these only where there is C or Triton
            try:
                out = function(*arguments, **settings)
                self.ran.add("triton" if on_gpu else "native")
                return out
            except Unsupported as error:
                if self.choice != "auto":
                    raise ValueError(f"kernels={self.choice}: {error}, or kernels=auto") from None
                _notice(str(error))
        self.ran.add("reference")
        return getattr(REFERENCE, self.name)(*arguments, **settings)


def choose(choice: str) -> Kernels:
    """What stands behind `kernels=`: reference; native, in C; triton, for a GPU; auto, each where it can be.

    Raises ValueError for another choice, for native where it cannot be built and for triton where it is not installed;
    auto says so once and takes the reference. So it is with tensors that they cannot take: native and triton then raise
    ValueError, auto gives notice once.
    """
    if choice == "reference":
        return REFERENCE
    if choice not in ("auto", "native", "triton"):
        raise ValueError(f"kernels={choice!r} is not known; accepted: auto, native, reference, triton")
    in_c = _in_c(choice) if choice != "triton" else None
    in_triton = _in_triton(choice) if choice != "native" else None
    if not in_c and not in_triton:
        return REFERENCE
    made = {
        one.name: Faster(choice, one.name, getattr(in_c, one.name, None), (in_triton or {}).get(one.name))
        for one in fields(Kernels)
        if one.name != "huge_pages"
    }
    return Kernels(**made, huge_pages=in_c.huge_pages if in_c else leave)


def _in_c(choice: str) -> Kernels | None:
    try:
        build.library()
    except OSError as error:
        if choice == "native":
            raise ValueError(f"kernels=native: {error}; accepted: reference, auto") from None
        _notice(str(error))
        return None
    return IN_C


def _in_triton(choice: str) -> dict[str, Callable[..., Any]] | None:
    """By auto only where there is a GPU: triton takes a second to import."""
    if choice == "auto" and not torch.cuda.is_available():
        return None
    try:
        from memlayers.kernels import triton_look_up, triton_reads, triton_updates  # not above: triton is an extra
    except ImportError as error:
        if choice == "triton":
            raise ValueError(f"kernels=triton: no triton ({error}); accepted: native, reference, auto") from None
        _notice(f"no triton ({error})")
        return None
    found: dict[str, Callable[..., Any]] = {
        "look_up": triton_look_up.look_up,
        "weighted_read": triton_reads.weighted_read,
        "adam_rows": triton_updates.adam_rows,
        "adagrad_rows": triton_updates.adagrad_rows,
        "sgd_rows": triton_updates.sgd_rows,
    }
    return found


def ran(kernels: Kernels) -> dict[str, str]:
    """Which implementation ran, for each replaceable function that a run called: {"look_up": "native", ...}.

    "native, reference" for a function that fell back in some of its calls. Functions that were never faster ones are
    left out.
    """
    called = {one.name: getattr(kernels, one.name) for one in fields(Kernels) if one.name != "huge_pages"}
    return {name: ", ".join(sorted(one.ran)) for name, one in called.items() if isinstance(one, Faster) and one.ran}


@contextmanager
def by_reference(model: nn.Module) -> Iterator[None]:
    """Within, a model computes by the reference, on any device."""
    faster = [(one, key, was) for one in model.modules() for key, was in vars(one).items() if isinstance(was, Faster)]
    for module, key, was in faster:
        setattr(module, key, getattr(REFERENCE, was.name))
    try:
        yield
    finally:
        for module, key, was in faster:
            setattr(module, key, was)


def in_use(choice: str, on_gpu: bool = False) -> str:
    """Which implementation `kernels=` selects on a device, tensors allowing: reference, native or triton."""
    chosen = choose(choice).weighted_read
    if not isinstance(chosen, Faster):
        return "reference"
    if chosen.in_triton and (on_gpu or not chosen.in_c):
        return "triton"
    return "reference" if on_gpu else "native"


@cache
def _notice(why: str) -> None:
    warnings.warn(f"kernels=auto: {why}; taking the reference", stacklevel=3)
