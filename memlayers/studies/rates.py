"""Tuned settings in conf/rates/, found by scripts/tune.py for each world, arm and budget."""

import math
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from memlayers.config.digest import flatten
from memlayers.config.model import PLACES
from memlayers.studies.files import CONF


def tuned_words(config: DictConfig, overrides: list[str]) -> list[str]:
    """The overrides to put before those of a command: the arm's tuned settings in this world, at the nearest budget; of
    two as near, that of less compute a token, or else of fewer exposures.

    Keys that the command sets are left out, and so is the rate of the table's rule if the command chooses a rule. An
    arm that is untuned in this world has the settings of memory if it has a table, else of dense, without keys that its
    file sets; so has one whose file names such an arm.
    """
    table = table_of(config.rates.world) if config.rates.world is not None and config.rates.arm is not None else {}
    by_command = {
        override.get_key_element().lstrip("+~") for override in OverridesParser.create().parse_overrides(overrides)
    }
    known = table if "rates.arm" in by_command else tuned_somewhere()  # an arm's file may name one tuned elsewhere
    if table and config.rates.arm not in {*known, config.arm}:
        raise ValueError(f"rates.arm={config.rates.arm} is not tuned; accepted: {', '.join(sorted(known))}, or null")
    kin = "memory" if has_table(config) else "dense"
    entries = table.get(config.rates.arm) or table.get(kin) or []
    if not entries or config.match.times <= 0 or config.training.exposures <= 0:
        return []  # validation refuses such times and exposures
    chosen = min(
        entries,
        key=lambda entry: (distance(config, entry["budget"]), entry["budget"]["times"], entry["budget"]["exposures"]),
    )
    given = set() if config.rates.arm in table else keys_set_by_file(config.arm)
    given |= by_command
    return [word for word in chosen["words"] if not is_given(word.partition("=")[0], given, config)]


@cache
def table_of(world: str) -> dict[str, list[dict[str, Any]]]:
    """The file of a world: {arm: [{budget: {times, exposures}, words: [...]}]}. Raises ValueError if there is none."""
    path = CONF / "rates" / f"{world}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise ValueError(f"rates.world={world}: no such file in conf/rates/; accepted: {known}, or null")
    return read_table(path)


def read_table(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A file of conf/rates/, as `table_of` returns it."""
    return dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]


@cache
def tuned_somewhere() -> set[str]:
    """The arms that are tuned in any world."""
    return {arm for path in (CONF / "rates").glob("*.yaml") for arm in read_table(path)}


def keys_set_by_file(arm: str) -> set[str]:
    """The keys that conf/arm/NAME.yaml sets."""
    path = CONF / "arm" / f"{arm}.yaml"
    return set(flatten(OmegaConf.to_container(OmegaConf.load(path)))) if path.is_file() else set()  # type: ignore[arg-type]


def has_table(config: DictConfig) -> bool:
    """Whether any layer of the model has a pool."""
    layers = [config.model.ffn, *(config.model[place] for place in PLACES)]
    return any(
        isinstance(layer, DictConfig) and "pool" in layer for layer in layers
    )  # invalid layers are reported later


def distance(config: DictConfig, budget: dict[str, float]) -> float:
    """The distance of a budget from the run's: the doublings of compute per token plus those of exposures."""
    longer = config.match.times if config.match.spend == "longer" else 1
    times = math.log2(config.match.times / longer / budget["times"])
    return abs(times) + abs(math.log2(config.training.exposures * longer / budget["exposures"]))


def is_given(key: str, given: set[str], config: DictConfig) -> bool:
    """Whether a tuned value of this key is not to be used, as the command decides it."""
    if key == "match.spend" and (config.match.by == "params" or config.match.reference is None):
        return True  # tuned for matching by FLOPs
    return key in given or (key.startswith("optim.values.") and "values" in given)
