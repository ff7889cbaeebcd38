"""Memory layers in other people's models: their feed-forwards are found by name and replaced.

model.layers.0.mlp   LlamaMLP  ->  Swapped(ProductKeyMemory)   } of one table, where
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

# Of our layers those that read a position's hidden state, no other one, and no token.
ALONE = (Dense, Memory, Peer, UltraMemV2)


def swap(
    model: nn.Module, pattern: str, ffn: Any, *, pool: str | None = None, freeze: bool = False, seed: int = 0
) -> list[str]:
    """Replace every module whose dotted name matches the pattern by a layer of these settings; returns their names.

    memlayers.swap(model, "model.layers.*.mlp", Memory(num_keys=128), pool="shared")

    In fnmatch's patterns `*` stands for any text, dots too. `pool` replaces the setting of that name: "own" is a table
    for each layer, "shared" one for all that this call makes. `freeze` leaves no other parameter trainable, but those
    of earlier swaps. New parameters take device and dtype of what they replace, but for tables of
    value_dtype="bfloat16", and are drawn by `model.init_parameters`.

    A model of transformers remembers the swap in its config: save_pretrained writes it, and `load_swapped` builds it
    again. So swap the whole model that will be saved, before it is wrapped or compiled.

    Raises ValueError, in one line, and then leaves the model as it was: for a pattern that matches nothing, modules
    that are no feed-forwards of one width, and settings that cannot stand there.
    """
    ffn = checked(ffn, pool)
    found = matching(model, pattern)
    widths = {name: width_of(name, module) for name, module in found.items()}
    (first, d_model), *_ = widths.items()
    for name, width in widths.items():
        if width != d_model:
            raise ValueError(f"{first} is {d_model} wide and {name} {width}; accepted: modules of one width a call")
    validate_layer("ffn", ffn, d_model)
    made = Swap(list(found), ffn, d_model, max(axes(found[first])))
    config = config_with(model, made)
    made.put_into(model, init=True, seed=seed)
    if config is not None:
        install(model, config)
    if freeze:
        kept = {id(p) for one in model.modules() if isinstance(one, Swapped) for p in one.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in kept:
                parameter.requires_grad_(False)
    return made.modules


def checked(ffn: Any, pool: str | None) -> Any:
    """The settings with that pool. Raises ValueError where they are no feed-forward's that knows one position alone."""
    accepted = f"accepted: {', '.join(one.__name__ for one in ALONE)}, or a layer of your own"
    if isinstance(ffn, type) or not hasattr(ffn, "build"):
        raise ValueError(f"ffn={ffn!r} is no settings of a layer; accepted: such as Memory(num_keys=64)")
    if type(ffn) in LAYERS and type(ffn) not in ALONE:
        name = type(ffn).__name__
        raise ValueError(f"ffn={name}: no feed-forward, or one of tokens, which are not known there; {accepted}")
    if pool is None:
        return ffn
    if not hasattr(ffn, "pool"):
        raise ValueError(f"pool={pool!r}: {type(ffn).__name__} has no pool; accepted: none for it")
    return replace(ffn, pool=pool)


def matching(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """By name. Raises ValueError, with the closest names, where there is none, and where one is within another."""
    modules = {name: one for name, one in model.named_modules(remove_duplicate=False) if name}
    found = {name: one for name, one in modules.items() if fnmatchcase(name, pattern)}
    if not found:
        first_of_kind = {re.sub(r"\d+", "*", name): name for name in reversed(modules)}
        near = difflib.get_close_matches(pattern, first_of_kind, n=3, cutoff=0)
        closest = ", ".join(first_of_kind[kind] for kind in near) or "none, as it has no modules"
        raise ValueError(f"{pattern!r} matches no module of {type(model).__name__}; closest: {closest}")
    for name in found:
        if inner := next((other for other in found if other.startswith(f"{name}.")), None):
            raise ValueError(f"{pattern!r} matches {name} and {inner} within it; accepted: one of both")
    return found


def width_of(name: str, module: nn.Module) -> int:
    """The d for which a module maps (1, 1, d) to the same shape. Raises ValueError where none, or several, do."""
    fitting = []
    like = next(module.parameters(), None)
    for width in sorted(axes(module)):
        assert like is not None
        devices = [like.device] if like.device.type == "cuda" else []
        try:
            with torch.no_grad(), torch.random.fork_rng(devices):  # of dropout
                out = module(torch.zeros(1, 1, width, device=like.device, dtype=like.dtype))
        except Exception:  # whatever a module of others' raises where it is asked for what it is not
            continue
        if isinstance(out, Tensor) and out.shape == (1, 1, width):
            fitting.append(width)
    if len(fitting) != 1:
        kind, told = type(module).__name__, " or ".join(map(str, fitting)) or "cannot be told"
        raise ValueError(f"{name} ({kind}): width {told}; accepted: a feed-forward, which maps (b, s, d) to (b, s, d)")
    return fitting[0]


def axes(module: nn.Module) -> set[int]:
    """Lengths of the axes of a module's matrices."""
    return {length for one in module.parameters() if one.ndim > 1 for length in one.shape[-2:]}
