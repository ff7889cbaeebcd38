"""Replaces feed-forwards of other models, found by name, by memory layers.

model.layers.0.mlp   LlamaMLP  ->  Swapped(ProductKeyMemory)   } one table, with
model.layers.1.mlp   LlamaMLP  ->  Swapped(ProductKeyMemory)   } pool="shared"
"""

import difflib
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from memlayers.config.model import validate_layer
from memlayers.foreign.remembered import config_with, install
from memlayers.foreign.swapped import Swap, Swapped
from memlayers.layers import LAYERS, Dense, Memory, Peer, UltraMemV2

# Our layers that depend on the hidden state of their position alone: on no other position, and on no token.
POSITIONWISE = (Dense, Memory, Peer, UltraMemV2)


def swap(
    model: nn.Module, pattern: str, ffn: Any, *, pool: str | None = None, freeze: bool = False, seed: int = 0
) -> list[str]:
    """Replace every module whose dotted name matches the pattern by a layer of these settings; returns their names.

    memlayers.swap(model, "model.layers.*.mlp", Memory(num_keys=128), pool="shared")

    The pattern is fnmatch's: `*` matches any text, dots too. `pool` overrides the setting of that name: "own" is a
    table for each layer, "shared" one for all layers of this call. `freeze` freezes all parameters but those of swapped
    layers. New parameters have the device and dtype of the modules that they replace, except tables of
    value_dtype="bfloat16", and are drawn by `model.init_parameters`. Calls with one seed draw the same numbers.

    Gradients of tables are sparse until `param_groups(model, tables="dense")` is called, as AdamW, clip_grad_norm_ and
    transformers' Trainer need; `param_groups(model)` has groups for an optimizer of rows.

    In a model of transformers, the swap is stored in the config: save_pretrained writes it, and `load_swapped` rebuilds
    it. So swap the whole model that will be saved, before it is wrapped or compiled.

    Raises ValueError, in one line, and leaves the model unchanged, for a pattern that matches nothing, modules that are
    not feed-forwards of one width, and invalid settings.
    """
    ffn = checked(ffn, pool)
    replaced = matching(model, pattern)
    widths = {name: width_of(name, module) for name, module in replaced.items()}
    (first, d_model), *_ = widths.items()
    for name, width in widths.items():
        if width != d_model:
            raise ValueError(f"{first} is {d_model} wide and {name} {width}; accepted: modules of one width a call")
    validate_layer("ffn", ffn, d_model)
    matrices = sum(parameter.numel() for parameter in replaced[first].parameters() if parameter.ndim > 1)
    new_swap = Swap(list(replaced), ffn, d_model, max(1, matrices // (3 * d_model)))
    config = config_with(model, new_swap)
    new_swap.put_into(model, init=True, seed=seed)
    if config is not None:
        install(model, config)
    if freeze:
        kept = {id(p) for module in model.modules() if isinstance(module, Swapped) for p in module.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad_(False)
    return new_swap.modules


def checked(ffn: Any, pool: str | None) -> Any:
    """The settings with this `pool`. Raises ValueError unless they are of a layer that can replace a feed-forward."""
    accepted = f"accepted: {', '.join(kind.__name__ for kind in POSITIONWISE)}, or a layer of your own"
    if isinstance(ffn, type) or not hasattr(ffn, "build"):
        raise ValueError(f"ffn={ffn!r} is no settings of a layer; accepted: such as Memory(num_keys=64)")
    if type(ffn) in LAYERS and type(ffn) not in POSITIONWISE:
        name = type(ffn).__name__
        raise ValueError(f"ffn={name}: no feed-forward, or one of tokens, which are not known there; {accepted}")
    if pool is None:
        return ffn
    if not hasattr(ffn, "pool"):
        raise ValueError(f"pool={pool!r}: {type(ffn).__name__} has no pool; accepted: none for it")
    return replace(ffn, pool=pool)


def matching(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """The matching modules by name. Raises ValueError if none matches, with the closest names, and if one match
    contains another.
    """
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    matches = {name: module for name, module in modules.items() if fnmatchcase(name, pattern)}
    if not matches:
        first_of_kind = {re.sub(r"\d+", "*", name): name for name in reversed(modules)}
        near = difflib.get_close_matches(pattern, first_of_kind, n=3, cutoff=0)
        closest = ", ".join(first_of_kind[kind] for kind in near) or "none, as it has no modules"
        raise ValueError(f"{pattern!r} matches no module of {type(model).__name__}; closest: {closest}")
    for name in matches:
        if inner := next((other for other in matches if other.startswith(f"{name}.")), None):
            raise ValueError(f"{pattern!r} matches {name} and {inner} within it; accepted: one of both")
    return matches


def width_of(name: str, module: nn.Module) -> int:
    """The width d for which a module maps (1, 1, d) to (1, 1, d). Raises ValueError unless there is exactly one."""
    training = [part for part in module.modules() if part.training]
    module.eval()  # as statistics of a batch would change
    try:
        fitting = widths_of(module)
    finally:
        for part in training:
            part.training = True
    if len(fitting) != 1:
        kind, widths = type(module).__name__, " or ".join(map(str, fitting)) or "cannot be told"
        raise ValueError(
            f"{name} ({kind}): width {widths}; accepted: a feed-forward, which maps (b, s, d) to (b, s, d)"
        )
    return fitting[0]


def widths_of(module: nn.Module) -> list[int]:
    """All widths d for which a module maps (1, 1, d) to (1, 1, d)."""
    fitting = []
    like = next(module.parameters(), None)
    for width in sorted(axes(module)):
        assert like is not None
        devices = [like.device] if like.device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):  # as dropout draws numbers
                out = module(torch.zeros(1, 1, width, device=like.device, dtype=like.dtype))
        except Exception:  # a foreign module may raise anything for a wrong width
            continue
        if isinstance(out, Tensor) and out.shape == (1, 1, width):
            fitting.append(width)
    return fitting


def axes(module: nn.Module) -> set[int]:
    """The lengths of the last two axes of a module's matrices."""
    return {length for parameter in module.parameters() if parameter.ndim > 1 for length in parameter.shape[-2:]}
