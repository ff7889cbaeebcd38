"""Where conf/ is, and a user's own layers: a Python file and a YAML beside it, named on the command line."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memlayers.config.model import PLACES

PACKAGE = Path(__file__).resolve().parent.parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "conf").is_dir() else None
CONF = PACKAGE.parent / "conf" if CHECKOUT else PACKAGE / "conf"  # a wheel carries its own


def checkout() -> str:
    """The folder that results/ is in: the checkout, or where one works with an installed package."""
    return str(CHECKOUT or Path.cwd())


def load_layers(overrides: list[str]) -> list[str]:
    """The command line with arm=mine/gated.py as arm=gated, whose settings are registered; ffn= is short for arm=.

    Raises ValueError for a file that is missing, or defines no layer, and for both ffn= and arm=.
    """
    named = [word.partition("=")[0] for word in overrides]
    if "ffn" in named and "arm" in named:
        word = overrides[named.index("ffn")]
        raise ValueError(f"{word}: an arm names its feed-forward already; accepted: arm= or ffn=, not both")
    loaded = []
    for word in overrides:
        key, equals, value = word.partition("=")
        if key in ("arm", "ffn", *(f"extra@model.{place}" for place in PLACES)):
            values = [load_layer(one) if one.endswith(".py") else one for one in value.split(",")]
            word = f"{'arm' if key == 'ffn' else key}{equals}{','.join(values)}"
        loaded.append(word)
    return loaded


PATHS = ("world.path", "world.templates", "results")


def quote_paths(overrides: list[str]) -> list[str]:
    """The command line with file names quoted for Hydra, whose grammar gives meaning to =, (, # and others in them."""

    def quoted(word: str) -> str:
        key, equals, value = word.partition("=")
        plain = value and value != "null" and value[0] not in "'\"" and "," not in value and "${" not in value
        if key.lstrip("+") not in PATHS or not plain:
            return word
        escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value or value.endswith("\\") else value
        return f"{key}{equals}'{escaped}'"

    return [quoted(word) for word in overrides]


def load_layer(name: str) -> str:
    """Register the layer of a Python file with the values of the YAML beside it; its name is the file's."""
    path = Path(name).resolve()
    values = path.with_suffix(".yaml")
    for file in (path, values):
        if not file.is_file():
            raise ValueError(f"{name}: no file {file.name} there; accepted: a layer's .py, with a .yaml beside it")
    if (CONF / "ffn" / values.name).exists() or (CONF / "arm" / values.name).exists():
        raise ValueError(f"{name}: there is an arm {path.stem} already; accepted: a file of another name")
    settings = settings_in(path)
    store = ConfigStore.instance()
    try:
        node = OmegaConf.merge(OmegaConf.structured(settings), OmegaConf.load(values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{values}: {str(error).splitlines()[0]}") from None
    for group in ("ffn", "extra"):
        package = "model.ffn" if group == "ffn" else None
        store.store(group=group, name=path.stem, node=node, package=package)
    store_arm(path.stem)
    return path.stem


def settings_in(path: Path) -> Any:
    """The dataclass with a `build` in a Python file as it is now, whose folder becomes importable, also by workers."""
    taken = importlib.util.find_spec(path.stem)
    if taken is not None and Path(str(taken.origin)).resolve() != path:
        raise ValueError(f"{path}: {taken.origin} has that name already; accepted: a file of another name")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))
    source = path.read_bytes()
    if path.stem in sys.modules and vars(sys.modules[path.stem]).get("__source__") != source:
        del sys.modules[path.stem]  # edited since, as one does beside a notebook
    try:
        module = importlib.import_module(path.stem)
    except Exception as error:
        raise ValueError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from None
    vars(module)["__source__"] = source
    own = [one for one in vars(module).values() if getattr(one, "__module__", None) == path.stem]
    found = [one for one in own if dataclasses.is_dataclass(one) and hasattr(one, "build")]
    if len(found) != 1:
        names = ", ".join(one.__name__ for one in found) or "none"  # type: ignore[union-attr]
        raise ValueError(f"{path}: dataclasses with a build method: {names}; accepted: one")
    return found[0]


def store_arm(name: str) -> None:
    """arm=NAME for a feed-forward of that name: matched to the reference, at its FLOPs."""
    arm = {"defaults": [{"override /ffn": name}], "arm": name}
    ConfigStore.instance().store(group="arm", name=name, node=DictConfig(arm), package="_global_")
