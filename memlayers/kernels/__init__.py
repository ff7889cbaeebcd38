"""Faster versions of functions in layers/, with the same signatures, chosen here and nowhere else."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from torch import Tensor

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
    """The function of this name in C or Triton; for tensors that it cannot take an error, or by auto the reference."""

    choice: str
    name: str
    function: Callable[..., Any]
    ran: set[str] = field(default_factory=set)  # native or triton, reference: what the calls ran

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        if settings.get("sparse", True):  # a read with a dense gradient is the reference's
            try:
                out = self.function(*arguments, **settings)
                self.ran.add("triton" if self.choice == "triton" else "native")
                return out
            except Unsupported as error:
                if self.choice != "auto":
                    raise ValueError(f"kernels={self.choice}: {error}, or kernels=auto") from None
                _notice(str(error))
        self.ran.add("reference")
        return getattr(REFERENCE, self.name)(*arguments, **settings)


def choose(choice: str) -> Kernels:
    """What stands behind `kernels=`: reference; native, in C; triton, the read in Triton; auto, native where it can be.

    Raises ValueError for another choice, for native where it cannot be built and for triton where it is not installed;
    auto says so once and takes the reference, never triton. So it is with tensors that they cannot take: native and
    triton then raise ValueError, auto gives notice once.
    """
    if choice == "reference":
        return REFERENCE
    if choice == "triton":
        return _in_triton()
    if choice not in ("auto", "native"):
        raise ValueError(f"kernels={choice!r} is not known; accepted: auto, native, reference, triton")
    try:
        build.library()
    except OSError as error:
        if choice == "native":
            raise ValueError(f"kernels=native: {error}; accepted: reference, auto") from None
        _notice(str(error))
        return REFERENCE
    names = [one.name for one in fields(Kernels)]
    return Kernels(**{name: Faster(choice, name, getattr(IN_C, name)) for name in names})


def _in_triton() -> Kernels:
    """Rows are left to the step of the optimizer, as by the reference."""
    try:
        from memlayers.kernels import triton_reads  # not above: triton is an extra
    except ImportError as error:
        raise ValueError(f"kernels=triton: no triton ({error}); accepted: native, reference, auto") from None
    return Kernels(weighted_read=Faster("triton", "weighted_read", triton_reads.weighted_read))


def ran(kernels: Kernels) -> dict[str, str]:
    """Which implementation ran, for each replaceable function that a run called: {"look_up": "native", ...}.

    "native, reference" for a function that fell back in some of its calls. Functions that were never faster ones are
    left out.
    """
    called = {one.name: getattr(kernels, one.name) for one in fields(Kernels) if one.name != "huge_pages"}
    return {name: ", ".join(sorted(one.ran)) for name, one in called.items() if isinstance(one, Faster) and one.ran}


def in_use(choice: str) -> str:
    """Which implementation `kernels=` selects on this machine, tensors allowing: reference, native or triton."""
    if choose(choice) is REFERENCE:
        return "reference"
    return "native" if choice == "auto" else choice


@cache
def _notice(why: str) -> None:
    warnings.warn(f"kernels=auto: {why}; taking the reference", stacklevel=3)
