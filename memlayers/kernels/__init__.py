"""Faster versions of functions in layers/, with the same signatures, chosen here and nowhere else."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any

from torch import Tensor

from memlayers.kernels import build, native
from memlayers.layers import pool, product_keys, updates


@dataclass(frozen=True)
class Kernels:
    """One implementation of each function that decides how fast a memory layer is."""

    product_key_topk: Callable[..., Any] = product_keys.product_key_topk
    weighted_read: Callable[..., Any] = pool.weighted_read
    adam_rows: Callable[..., None] = updates.adam_rows
    adagrad_rows: Callable[..., None] = updates.adagrad_rows
    sgd_rows: Callable[..., None] = updates.sgd_rows
    huge_pages: Callable[[Tensor], Tensor] = lambda table: table


REFERENCE = Kernels()


def choose(choice: str) -> Kernels:
    """What stands behind `kernels=`: reference; native, in C; or auto, native wherever it can be.

    Raises ValueError for native where it cannot be built; auto says so once and takes the reference. So it is with
    tensors that native cannot take: native then raises ValueError, auto gives notice once.
    """
    if choice == "reference":
        return REFERENCE
    try:
        build.library()
    except OSError as error:
        if choice == "native":
            raise ValueError(f"kernels=native: {error}; accepted: reference, auto") from None
        _notice(str(error))
        return REFERENCE
    names = [field.name for field in fields(Kernels)]
    guard = _or_stop if choice == "native" else _or_reference
    return Kernels(**{name: guard(getattr(native, name), getattr(REFERENCE, name)) for name in names})


def in_use(choice: str) -> str:
    """What `kernels=` comes to on this machine, for the record: reference or native."""
    return "reference" if choose(choice) is REFERENCE else "native"


def _or_stop(fast: Callable[..., Any], _: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fast)
    def run(*arguments: Any, **settings: Any) -> Any:
        try:
            return fast(*arguments, **settings)
        except native.Unsupported as error:
            raise ValueError(f"kernels=native: {error}, or kernels=auto") from None

    return run


def _or_reference(fast: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fast)
    def run(*arguments: Any, **settings: Any) -> Any:
        try:
            return fast(*arguments, **settings)
        except native.Unsupported as error:
            _notice(str(error))
        return plain(*arguments, **settings)

    return run


@cache
def _notice(why: str) -> None:
    warnings.warn(f"kernels=auto: {why}; taking the reference", stacklevel=4)
