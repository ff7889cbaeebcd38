"""conf/rates/: the settings that scripts/tune.py found for each arm in each world, at each budget that it searched."""

import math
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from memlayers.config.digest import flatten
from memlayers.config.model import PLACES
from memlayers.studies.files import CONF


def tuned_words(config: DictConfig, overrides: list[str]) -> list[str]:
    """What is put before the words of a command: the arm's settings in this world, of the nearest budget searched.

    What the command says itself is left out, and for a rule of value tables that it names, the rate of another. An arm
    that was never searched has those of memory if it has a table, and of dense if not, but for what its file says.
    """
    table = table_of(config.rates.world) if config.rates.world is not None and config.rates.arm is not None else {}
    kin = "memory" if has_table(config) else "dense"
    entries = table.get(config.rates.arm) or table.get(kin) or []
    if not entries or config.match.times <= 0 or config.training.exposures <= 0:
        return []  # the latter are refused when they are validated
    chosen = min(entries, key=lambda entry: distance(config, entry["budget"]))
    given = set() if config.rates.arm in table else said_by_file(config.arm)
    given |= {one.get_key_element().lstrip("+~") for one in OverridesParser.create().parse_overrides(overrides)}
    return [word for word in chosen["words"] if not is_given(word.partition("=")[0], given, config)]


@cache
def table_of(world: str) -> dict[str, list[dict[str, Any]]]:
    """{arm: [{budget: {times, exposures}, words: [...]}]}. Raises ValueError for a world without a file."""
    path = CONF / "rates" / f"{world}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.yaml")))
        raise ValueError(f"rates.world={world}: no such file in conf/rates/; accepted: {known}, or null")
    return dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]


def said_by_file(arm: str) -> set[str]:
    """Keys that conf/arm/NAME.yaml sets; none for an arm without a file."""
    path = CONF / "arm" / f"{arm}.yaml"
    return set(flatten(OmegaConf.to_container(OmegaConf.load(path)))) if path.is_file() else set()  # type: ignore[arg-type]


def has_table(config: DictConfig) -> bool:
    layers = [config.model.ffn, *(config.model[place] for place in PLACES)]
    return any(isinstance(layer, DictConfig) and "pool" in layer for layer in layers)  # what is none is told later


def distance(config: DictConfig, budget: dict[str, float]) -> float:
    """How far a budget is from the run's, in doublings of compute per token and of showings."""
    longer = config.match.times if config.match.spend == "longer" else 1
    times = math.log2(config.match.times / longer / budget["times"])
    return abs(times) + abs(math.log2(config.training.exposures * longer / budget["exposures"]))


def is_given(key: str, given: set[str], config: DictConfig) -> bool:
    """Whether the command settles this key itself."""
    if key == "match.spend" and (config.match.by == "params" or config.match.reference is None):
        return True  # was found for compute
    return key in given or (key.startswith("optim.values.") and "values" in given)
