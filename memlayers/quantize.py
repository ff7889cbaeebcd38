"""Quantization of a trained model: rounding, noise, and the bytes of what is stored.

A row has one scale, its largest absolute value in bfloat16. int8, int4 and int2 are 256, 16 and 4 values, evenly spaced
from -scale to scale, and ternary is -scale, 0 and scale:

    int2    -1  -1/3  1/3  1        row  0.3 -0.8 0.1   ->   scale 0.8   ->   0.27 -0.8 0.27

A row is the last axis of a parameter: a slot of a table, a token's embedding, the weights of one output of a matrix.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from memlayers.config import QuantizeConfig
from memlayers.model import Transformer, parameters_with_roles

VALUES = {"int8": 256, "int4": 16, "int2": 4, "ternary": 3}  # how many values a number can have
BITS = {"bfloat16": 16.0, "int8": 8.0, "int4": 4.0, "int2": 2.0, "ternary": 1.6}  # ternary: five numbers in a byte
SCALE_BITS = 16
WEIGHTS = (
    "matrix",
    "output",
    "embedding",
    "memory_key",
)  # roles that are rounded; all others have 1% of the parameters or less


def rounded_rows(x: Tensor, width: str) -> Tensor:
    """Round x (..., d), in float32, to the nearest values of a width; rounding again changes nothing. Raises ValueError
    for another dtype, which may not hold these values.
    """
    if width == "float32":
        return x
    if x.dtype != torch.float32:
        raise ValueError(f"a parameter in {x.dtype} is not rounded to {width}; accepted: float32")
    if width == "bfloat16":
        return x.to(torch.bfloat16).to(x.dtype)
    scale = x.abs().amax(dim=-1, keepdim=True).to(torch.bfloat16).to(x.dtype)
    top = (VALUES[width] - 1) / 2  # values are step times -top, 1 - top, ..., top
    middle = top % 1
    step = scale / top
    code = (x / step.clamp(min=torch.finfo(x.dtype).tiny) - middle).round() + middle
    return code.clamp(-top, top) * step


def widths(model: nn.Module, settings: QuantizeConfig) -> Iterator[tuple[nn.Parameter, str, str]]:
    """Yield (parameter, its role, the width that it is stored in) of every parameter, once."""
    for _, role, parameter in parameters_with_roles(model):
        width = settings.weights if role in WEIGHTS else "float32"
        yield parameter, role, settings.tables if role == "memory_value" else width


@contextmanager
def rounded(model: nn.Module, settings: QuantizeConfig) -> Iterator[None]:
    """Context in which parameters are rounded; afterwards they have their full values again.

    Gradients inside are taken at the rounded values. An update that applies them afterwards is the straight-through
    estimator (Bengio et al. 2013, arXiv 1308.3432). Do not update a rounded parameter inside.
    """
    kept = [(values, values.data, width) for values, _, width in widths(model, settings) if width != "float32"]
    try:
        for parameter, full, width in kept:
            parameter.data = rounded_rows(full, width)
        yield
    finally:
        for parameter, full, _ in kept:
            parameter.data = full


@torch.no_grad()
def quantize(model: nn.Module, settings: QuantizeConfig, generator: torch.Generator) -> None:
    """Add noise to tables, then round, in place."""
    for parameter, role, width in widths(model, settings):
        if role == "memory_value" and settings.noise:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.add_(noise * parameter.std(), alpha=settings.noise)
        if width != "float32":
            parameter.copy_(rounded_rows(parameter, width))


def stored_bytes(model: Transformer, settings: QuantizeConfig) -> dict[str, float]:
    """Bytes of the tables and of the weights (all other parameters), with the scales of their rows."""
    total = {"tables": 0.0, "weights": 0.0}
    d_value = {id(pool.values): pool.d_value for pool in model.tables()}  # also where a process has some columns only
    for parameter, role, width in widths(model, settings):
        rows, d = parameter.shape[:-1].numel(), d_value.get(id(parameter), parameter.shape[-1])
        row_bits = d * BITS.get(width, 8.0 * parameter.element_size()) + (SCALE_BITS if width in VALUES else 0)
        total["tables" if role == "memory_value" else "weights"] += rows * row_bits / 8
    return total
