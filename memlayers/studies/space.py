"""The search spaces of scripts/tune.py, from conf/space/."""

import copy
import math
from typing import Any, cast

from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import BaseTrial, FrozenTrial

from memlayers.config import RunConfig
from memlayers.studies.files import CONF

EDGE = 0.03  # share of a range; a setting within it from an end is at the edge
Space = dict[str, dict[str, Any]]


def space_of(config: RunConfig) -> Space:
    """The search space of an arm: conf/space/default.yaml, tables.yaml or dense.yaml, those of prose, and the arm's
    own.
    """
    kind = "tables" if config.model.has_tables else "dense"
    prose = ("prose", f"prose_{kind}") if config.world.text == "prose" else ()
    merged: Space = {}
    for name in dict.fromkeys(("default", kind, *prose, config.arm)):  # an arm may be called dense
        path = CONF / "space" / f"{name}.yaml"
        if path.is_file():
            merged |= cast(Space, OmegaConf.to_container(OmegaConf.load(path)))
    if prose and hasattr(config.model.ffn, "pool"):
        places = [f"[{block}]" for block in range(config.model.depth)]
        merged["model.blocks"] = {"choices": places, "start": str(config.model.chosen_blocks())}
    return merged


def suggest(trial: BaseTrial, space: Space) -> list[str]:
    """Let Optuna choose from the space; returns overrides of a command line."""
    words = []
    for key, entry in space.items():
        choices = entry.get("choices")
        if choices is not None:
            chosen = trial.suggest_categorical(key, list(choices))
            if chosen != "null":  # null in a group: no override
                words.append(f"{key}={str(chosen).lower() if isinstance(chosen, bool) else chosen}")
            if isinstance(choices, dict):
                subspace = {f"{chosen}: {name}": entry_of for name, entry_of in choices[chosen].items()}
                words += [word.partition(": ")[2] for word in suggest(trial, subspace)]
        elif entry.get("or_null") and not trial.suggest_categorical(f"with {key}", [True, False]):
            words.append(f"{key}=null")
        else:
            value = trial.suggest_float(key, float(entry["low"]), float(entry["high"]), log=entry.get("log", False))
            words.append(f"{key}={value:.4g}")
    return words


def read(
    words: list[str], space: Space, wider: dict[str, list[float]]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The parameters of a trial and their distributions, from the words that `suggest` made of them; without those that
    the space did not have then. `wider`: the ends of ranges that were others than in `space`.
    """
    values = dict(word.split("=", 1) for word in words)
    parameters: dict[str, Any] = {}
    kinds: dict[str, BaseDistribution] = {}

    def take(name: str, value: Any, kind: BaseDistribution) -> None:
        parameters[name], kinds[name] = value, kind

    def take_all(space: Space, prefix: str = "") -> None:
        for key, entry in space.items():
            name, word, choices = prefix + key, values.get(key, "null"), entry.get("choices")
            if choices is not None:
                chosen = next((choice for choice in choices if str(choice).lower() == word.lower()), None)
                if chosen is None:
                    continue
                take(name, chosen, CategoricalDistribution(list(choices)))
                if isinstance(choices, dict):
                    take_all(choices[chosen], f"{chosen}: ")
            elif key in values:
                if entry.get("or_null"):
                    take(f"with {name}", word != "null", CategoricalDistribution([True, False]))
                if word != "null":
                    low, high = wider.get(name, (float(entry["low"]), float(entry["high"])))
                    value = min(max(float(word), low), high)  # words are rounded
                    take(name, value, FloatDistribution(low, high, log=entry.get("log", False)))

    take_all(space)
    return parameters, kinds


def start_of(space: Space) -> dict[str, Any]:
    """The parameters of the first trial: the `start` of each entry."""
    parameters: dict[str, Any] = {}
    for key, entry in space.items():
        choices, start = entry.get("choices"), entry["start"]
        if choices is None:
            if entry.get("or_null"):
                parameters[f"with {key}"] = start is not None
            if start is not None:
                parameters[key] = float(start)
            continue
        parameters[key] = start
        if isinstance(choices, dict):
            parameters |= {f"{start}: {name}": float(range_["start"]) for name, range_ in choices[start].items()}
    return parameters


def ranges(space: Space) -> dict[str, dict[str, Any]]:
    """The numeric ranges of a space, with those of its choices, by parameter name in a trial."""
    by_name = {}
    for key, entry in space.items():
        if "low" in entry:
            by_name[key] = entry
        elif isinstance(entry["choices"], dict):
            for choice, subspace in entry["choices"].items():
                by_name |= {f"{choice}: {name}": range_ for name, range_ in ranges(subspace).items()}
    return by_name


def edges(space: Space, trial: FrozenTrial) -> list[str]:
    """Names of the ranges in which the trial is at an end or beyond; a lower end of 0 and an upper one that is the most
    that a setting can be do not count.
    """
    names = []
    for name, entry in ranges(space).items():
        if name in trial.params:
            scale = math.log if entry.get("log") else float
            low, high, value = (scale(float(number)) for number in (entry["low"], entry["high"], trial.params[name]))
            share = (value - low) / (high - low)
            at_top = share > 1 - EDGE and entry["high"] != entry.get("most")
            if at_top or (share < EDGE and entry["low"] != 0):
                names.append(name)
    return names


def widened(space: Space, names: list[str]) -> Space:
    """The space with these ranges widened: on a log scale by a factor of 4 at both ends, else by a quarter at the
    upper, up to the most that the setting can be.
    """
    wide = copy.deepcopy(space)
    for name, entry in ranges(wide).items():
        if name in names and entry.get("log"):
            entry |= {"low": float(entry["low"]) / 4, "high": float(entry["high"]) * 4}
        elif name in names:
            high = entry["high"] + (entry["high"] - entry["low"]) / 4
            entry["high"] = min(high, entry.get("most", high))
    return wide
