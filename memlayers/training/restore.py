"""Rebuilds a configuration from the settings in a record or a saved model: the inverse of digest.settings."""

import dataclasses
import typing
from typing import Any

from memlayers.config import worlds
from memlayers.config.digest import is_ours, kind_of
from memlayers.config.run import RunConfig
from memlayers.layers import LAYERS
from memlayers.optim.rules import RULES


def restored(given: dict[str, Any], others: tuple[type, ...] = ()) -> RunConfig:
    """The RunConfig of these settings; `others` are the settings classes of layers from the user's files.

    Raises ValueError for an unknown layer, rule or setting, and for a user's file that has changed since.
    """
    world_kinds = [kind for kind in vars(worlds).values() if isinstance(kind, type)]
    kinds = {kind.__name__: kind for kind in (*world_kinds, *LAYERS, *RULES.values(), *others)}
    config = filled(RunConfig, given, kinds)
    assert isinstance(config, RunConfig)
    return config


def filled(hint: Any, given: Any, kinds: dict[str, type]) -> Any:
    """`given` as a value of type `hint`. A dictionary with a "kind" becomes that class, another the hint's dataclass,
    if it is one, or stays a dictionary.
    """
    if not isinstance(given, dict):
        return given
    if "kind" in given:
        kind = kinds.get(given["kind"])
        if kind is None:
            raise ValueError(f"{given['kind']} is no layer or rule of ours; accepted: with the file that defines it")
        settings = _of_class(kind, given, kinds)
        if not is_ours(settings) and kind_of(settings)["source"] != given.get("source"):
            raise ValueError(f"{given['kind']} has another source than the saved one; accepted: the file as it was")
        return settings
    if dataclasses.is_dataclass(hint):
        return _of_class(hint, given, kinds)
    inner = [argument for argument in typing.get_args(hint) if dataclasses.is_dataclass(argument)]
    return {key: filled(inner[0] if inner else None, value, kinds) for key, value in given.items()}


def _of_class(kind: Any, given: dict[str, Any], kinds: dict[str, type]) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = given.keys() - hints.keys() - {"kind", "source"}
    if unknown:
        raise ValueError(f"{kind.__name__} has no setting {min(unknown)!r}; accepted: as saved by this version")
    fields = [field.name for field in dataclasses.fields(kind) if field.name in given]
    return kind(**{name: filled(hints[name], given[name], kinds) for name in fields})
