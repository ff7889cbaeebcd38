"""A swap stands in the config of a model of transformers, so that save_pretrained writes it beside the weights.

config.json   "model_type": "memlayers_llama"                   a type that plain transformers refuses
              "transformers_weights": "memlayers.load_swapped"  and a file that a class called by name does not find
              "memlayers": {"format": 1, "swaps": [...]}        what stands where
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

FORMAT = 1  # counted up when older files can no longer be read


class Remembers:
    """Mixed into the class of a config. Without it transformers would load the model and draw what it does not know."""

    model_type: str

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        kind = f"memlayers_{self.model_type}"
        return plain | {"model_type": kind, "transformers_weights": "memlayers.load_swapped"}

    def __reduce__(self) -> tuple[Any, ...]:
        return remembering, (type(self).__mro__[2], self.__dict__)  # the class is made here and found nowhere else


def remembering(kind: type, content: dict[str, Any]) -> Any:
    """A config of this class with this content, that remembers."""
    made: Any = object.__new__(_remembering(kind))
    made.__dict__.update(content)
    return made


@cache
def _remembering(kind: type) -> type:
    return type(kind.__name__, (Remembers, kind), {})


def config_with(model: nn.Module, swap: Swap) -> Any:
    """The config of a model of transformers with one swap more, for `install`; None for other models.

    Raises ValueError for a layer whose source is in no file, by which `load_swapped` could know it again.
    """
    old = getattr(model, "config", None)
    if "transformers" not in sys.modules or not isinstance(old, sys.modules["transformers"].PreTrainedConfig):
        return None
    try:
        said = {field.name: settings(getattr(swap, field.name)) for field in fields(swap)}
    except (AttributeError, OSError):
        name = type(swap.ffn).__name__
        raise ValueError(f"ffn={name} is defined in no file, and cannot be saved; accepted: one in a .py") from None
    config = copy.deepcopy(old)  # other models may have the same one
    if not isinstance(old, Remembers):
        config = remembering(type(old), config.__dict__)
        config.memlayers = {"format": FORMAT, "version": __version__, "swaps": []}
    config.memlayers["swaps"].append(said)
    return config


def install(model: nn.Module, config: Any) -> None:
    """In all modules that have the model's config."""
    old = model.config
    for module in model.modules():
        if getattr(module, "config", None) is old:
            module.config = config
