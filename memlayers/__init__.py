"""memlayers: memory layers against dense ones, at matched compute, on factual recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    from torch import nn

    from memlayers.trained import Trained

__version__ = "0.2.0"


def run(*overrides: str, **settings: object) -> dict[str, Any]:
    """Train and measure one run, as scripts/train.py does, and return its record; that of a finished run is read.

    memlayers.run("model.ffn.topk=16", arm="memory", world="biographies", seed=1)

    Its `path` is the record's file, which `load` takes if save_model=True.

    Raises ValueError, in one line, for invalid settings, and for settings of several runs.
    """
    from memlayers.studies.cli import run_one  # not above: this import alone loads neither torch nor Hydra

    return run_one([*overrides, *(f"{key}={value}" for key, value in settings.items())])


def records(folder: str | Path) -> pandas.DataFrame:
    """All records below a folder as a DataFrame, a row each: read-outs, axes, and all other values by dotted keys."""
    from memlayers.studies.frame import records as read

    return read(folder)


def load(path: str | Path, layers: tuple[type, ...] = ()) -> Trained:
    """Load the model of a run with save_model=true, by its path or its record's; `layers`: the user's settings classes.

    memlayers.load("results/local/single/atlas_airports/memory-s0-0123456789ab.json").ask("JFK", "country")
    """
    from memlayers.trained import Trained
    from memlayers.training.saved_model import load as read

    return Trained(*read(path, layers))


def swap(
    model: nn.Module, pattern: str, ffn: Any, *, pool: str | None = None, freeze: bool = False, seed: int = 0
) -> list[str]:
    """Replace feed-forwards of any model by memory layers, in place; see memlayers/foreign/swap.py.

    memlayers.swap(model, "model.layers.*.mlp", Memory(num_keys=128), pool="shared")
    """
    from memlayers.foreign.swap import swap as replace

    return replace(model, pattern, ffn, pool=pool, freeze=freeze, seed=seed)


def load_swapped(path: str | Path, layers: tuple[type, ...] = (), **settings: Any) -> Any:
    """Load a swapped model from the folder of its save_pretrained; `settings` as for from_pretrained."""
    from memlayers.foreign.load import load_swapped as read

    return read(path, layers, **settings)


def param_groups(model: nn.Module, tables: str = "sparse", **settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Parameter groups by role for any optimizer, tables last; see memlayers/foreign/groups.py.

    *others, values = memlayers.param_groups(model, memory_key={"lr": 1e-3})
    """
    from memlayers.foreign.groups import param_groups as groups

    return groups(model, tables, **settings)
