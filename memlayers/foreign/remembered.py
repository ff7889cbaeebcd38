"""Stores swaps in the config of a model of transformers, so that save_pretrained writes them beside the weights.

config.json   "model_type": "memlayers_llama"                   a type that plain transformers refuses
              "transformers_weights": "memlayers.load_swapped"  names no file, so that Llama...from_pretrained fails too
              "memlayers": {"format": 1, "swaps": [...]}        which layers are in which modules
"""

import copy
import sys
from dataclasses import fields
from functools import cache
from typing import Any

from torch import nn

from memlayers import __version__
from memlayers.config.digest import settings
from memlayers.foreign.swapped import Swap

FORMAT = 1  # raised when older files can no longer be read


class Remembers:
    """Mixin of a config's class. It makes plain transformers refuse the model; else it would draw our layers anew."""

    model_type: str

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        kind = f"memlayers_{self.model_type}"
        return plain | {"model_type": kind, "transformers_weights": "memlayers.load_swapped"}

    def __reduce__(self) -> tuple[Any, ...]:
        # The class cannot be imported, so pickle has to rebuild it.
        return remembering, (type(self).__mro__[2], self.__dict__)


def remembering(kind: type, content: dict[str, Any]) -> Any:
    """A config of class `kind` with the mixin Remembers and this content."""
    config: Any = object.__new__(_remembering(kind))
    config.__dict__.update(content)
    return config


@cache
def _remembering(kind: type) -> type:
    return type(kind.__name__, (Remembers, kind), {})


def config_with(model: nn.Module, swap: Swap) -> Any:
    """A copy of the model's config with this swap added, for `install`; None for models not of transformers.

    Raises ValueError for a layer that is not defined in a file, as `load_swapped` compares the source.
    """
    old = getattr(model, "config", None)
    if "transformers" not in sys.modules or not isinstance(old, sys.modules["transformers"].PreTrainedConfig):
        return None
    try:
        content = {field.name: settings(getattr(swap, field.name)) for field in fields(swap)}
    except (AttributeError, OSError):
        name = type(swap.ffn).__name__
        raise ValueError(f"ffn={name} is defined in no file, and cannot be saved; accepted: one in a .py") from None
    config = copy.deepcopy(old)  # other models may share it
    if not isinstance(old, Remembers):
        config = remembering(type(old), config.__dict__)
        config.memlayers = {"format": FORMAT, "version": __version__, "swaps": []}
    config.memlayers["swaps"].append(content)
    return config


def install(model: nn.Module, config: Any) -> None:
    """Replace the config of the model and of all its modules that share it."""
    old = model.config
    for module in model.modules():
        if getattr(module, "config", None) is old:
            module.config = config
