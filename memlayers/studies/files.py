"""The place of conf/, and users' layers: a Python file with a YAML beside it, named on the command line."""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from memlayers.config.model import PLACES

PACKAGE = Path(__file__).resolve().parent.parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "conf").is_dir() else None
CONF = PACKAGE.parent / "conf" if CHECKOUT else PACKAGE / "conf"  # a wheel carries its own


def checkout() -> str:
    """The folder of results/: the checkout, or for an installed package the working directory."""
    return str(CHECKOUT or Path.cwd())


def load_layers(overrides: list[str]) -> list[str]:
    """Register the layers in files; returns the command line with arm=gated for arm=mine/gated.py, and arm= for ffn=.

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
            values = [load_layer(name) if name.endswith(".py") else name for name in value.split(",")]
            word = f"{'arm' if key == 'ffn' else key}{equals}{','.join(values)}"
        loaded.append(word)
    return loaded


PATHS = ("world.path", "world.templates", "results")


def quote_paths(overrides: list[str]) -> list[str]:
    """The command line with file names quoted for Hydra, in whose grammar =, (, # and others have a meaning."""

    def quoted(word: str) -> str:
        key, equals, value = word.partition("=")
        plain = value and value != "null" and value[0] not in "'\"" and "," not in value and "${" not in value
        if key.lstrip("+") not in PATHS or not plain:
            return word
        escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value or value.endswith("\\") else value
        return f"{key}{equals}'{escaped}'"

    return [quoted(word) for word in overrides]


def load_layer(name: str) -> str:
    """Register the layer in a Python file, with the values of the YAML beside it; returns its name, the file's stem."""
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
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{values}: {str(error).splitlines()[0]}; accepted: YAML of the layer's settings") from None
    for group in ("ffn", "extra"):
        package = "model.ffn" if group == "ffn" else None
        store.store(group=group, name=path.stem, node=node, package=package)
    store_arm(path.stem)
    return path.stem


def settings_in(path: Path) -> Any:
    """The dataclass with a `build` in a Python file, imported anew if edited; adds its folder to the path, also of
    workers.
    """
    taken = importlib.util.find_spec(path.stem)
    if taken is not None and Path(str(taken.origin)).resolve() != path:
        raise ValueError(f"{path}: {taken.origin} has that name already; accepted: a file of another name")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))
    source = path.read_bytes()
    if path.stem in sys.modules and vars(sys.modules[path.stem]).get("__source__") != source:
        del sys.modules[path.stem]  # edited since, as beside a notebook
    try:
        module = importlib.import_module(path.stem)
    except Exception as error:
        raise ValueError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from None
    vars(module)["__source__"] = source
    defined = [value for value in vars(module).values() if getattr(value, "__module__", None) == path.stem]
    kinds = [value for value in defined if dataclasses.is_dataclass(value) and hasattr(value, "build")]
    if len(kinds) != 1:
        names = ", ".join(kind.__name__ for kind in kinds) or "none"  # type: ignore[union-attr]
        raise ValueError(f"{path}: dataclasses with a build method: {names}; accepted: one")
    return kinds[0]


def store_arm(name: str) -> None:
    """Register arm=NAME for the feed-forward of that name, matched to the FLOPs of the reference."""
    arm = {"defaults": [{"override /ffn": name}], "arm": name}
    ConfigStore.instance().store(group="arm", name=name, node=DictConfig(arm), package="_global_")
