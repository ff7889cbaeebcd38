"""memlayers: memory layers against dense ones, at matched compute, on factual recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas

    from memlayers.trained import Trained

__version__ = "0.2.0"


def run(*overrides: str, **settings: object) -> dict[str, Any]:
    """Train and measure one run as scripts/train.py would, and return its record; a finished one is read again.

    memlayers.run("model.ffn.topk=16", arm="memory", world="biographies", seed=1)

    Raises ValueError, in one line, for a mistake in the settings, and for settings of several runs.
    """
    from memlayers.studies.cli import run_one  # not above: this import alone loads neither torch nor Hydra

    return run_one([*overrides, *(f"{key}={value}" for key, value in settings.items())])


def records(folder: str | Path) -> pandas.DataFrame:
    """Every record below a folder as a row: read-outs, axes, and all that a record holds under dotted names."""
    from memlayers.studies.frame import records as read

    return read(folder)


def load(path: str | Path, layers: tuple[type, ...] = ()) -> Trained:
    """The model of a run with save_model=true, by its file or its record's; `layers`: settings of the user's own.

    memlayers.load("results/local/single/atlas_airports/memory-s0-0123456789ab.json").ask("JFK", "country")
    """
    from memlayers.trained import Trained
    from memlayers.training.saved_model import load as read

    return Trained(*read(path, layers))
