"""A configuration from its settings, as records and saved models hold them: the inverse of digest.settings."""

import dataclasses
import typing
from typing import Any

from memlayers.config import worlds
from memlayers.config.digest import is_ours, kind_of
from memlayers.config.run import RunConfig
from memlayers.layers import LAYERS
from memlayers.optim.rules import RULES


def restored(given: dict[str, Any], others: tuple[type, ...] = ()) -> RunConfig:
    """The RunConfig of these settings; `others` are the settings' classes of layers in the user's own files.

    Raises ValueError for a layer, a rule or a setting that is not there, and for a file that has changed since.
    """
    own = [one for one in vars(worlds).values() if isinstance(one, type)]
    kinds = {kind.__name__: kind for kind in (*own, *LAYERS, *RULES.values(), *others)}
    config = filled(RunConfig, given, kinds)
    assert isinstance(config, RunConfig)
    return config


def filled(hint: Any, given: Any, kinds: dict[str, type]) -> Any:
    """A value of this type. Dictionaries with a kind are of that class, others of the hint's or plain ones."""
    if not isinstance(given, dict):
        return given
    if "kind" in given:
        kind = kinds.get(given["kind"])
        if kind is None:
            raise ValueError(f"{given['kind']} is no layer or rule of ours; accepted: with the file that defines it")
        made = _of_class(kind, given, kinds)
        if not is_ours(made) and kind_of(made)["source"] != given.get("source"):
            raise ValueError(f"{given['kind']} has another source than the saved one; accepted: the file as it was")
        return made
    if dataclasses.is_dataclass(hint):
        return _of_class(hint, given, kinds)
    inner = [one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)]
    return {key: filled(inner[0] if inner else None, value, kinds) for key, value in given.items()}


def _of_class(kind: Any, given: dict[str, Any], kinds: dict[str, type]) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = given.keys() - hints.keys() - {"kind", "source"}
    if unknown:
        raise ValueError(f"{kind.__name__} has no setting {min(unknown)!r}; accepted: as saved by this version")
    fields = [field.name for field in dataclasses.fields(kind) if field.name in given]
    return kind(**{name: filled(hints[name], given[name], kinds) for name in fields})
