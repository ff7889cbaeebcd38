"""conf/space/: what scripts/tune.py searches for an arm, and where it begins."""

import copy
import math
from typing import Any, cast

from omegaconf import OmegaConf
from optuna.trial import BaseTrial, FrozenTrial

from memlayers.config import RunConfig
from memlayers.config.model import PLACES
from memlayers.studies.files import CONF

EDGE = 0.03  # of a range: a setting as near to an end as this is at its edge
Space = dict[str, dict[str, Any]]


def space_of(config: RunConfig) -> Space:
    """The search space of an arm: conf/space/default.yaml, tables.yaml or dense.yaml, those of prose, and its own."""
    layers = [config.model.ffn, *(getattr(config.model, place) for place in PLACES)]
    kind = "tables" if any(hasattr(layer, "pool") for layer in layers) else "dense"
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
    """The words of a trial, as in a command line."""
    words = []
    for key, entry in space.items():
        choices = entry.get("choices")
        if choices is not None:
            chosen = trial.suggest_categorical(key, list(choices))
            if chosen != "null":  # of a group: as without the word
                words.append(f"{key}={str(chosen).lower() if isinstance(chosen, bool) else chosen}")
            if isinstance(choices, dict):
                own = {f"{chosen}: {name}": one for name, one in choices[chosen].items()}
                words += [word.partition(": ")[2] for word in suggest(trial, own)]
        elif entry.get("or_null") and not trial.suggest_categorical(f"with {key}", [True, False]):
            words.append(f"{key}=null")
        else:
            value = trial.suggest_float(key, float(entry["low"]), float(entry["high"]), log=entry.get("log", False))
            words.append(f"{key}={value:.4g}")
    return words


def start_of(space: Space) -> dict[str, Any]:
    """The first trial: where each range begins."""
    found: dict[str, Any] = {}
    for key, entry in space.items():
        choices, start = entry.get("choices"), entry["start"]
        if choices is None:
            if entry.get("or_null"):
                found[f"with {key}"] = start is not None
            if start is not None:
                found[key] = float(start)
            continue
        found[key] = start
        if isinstance(choices, dict):
            found |= {f"{start}: {name}": float(one["start"]) for name, one in choices[start].items()}
    return found


def ranges(space: Space) -> dict[str, dict[str, Any]]:
    """The numeric ranges in a space by their names in a trial, those of choices included."""
    found = {}
    for key, entry in space.items():
        if "low" in entry:
            found[key] = entry
        elif isinstance(entry["choices"], dict):
            for choice, own in entry["choices"].items():
                found |= {f"{choice}: {name}": one for name, one in ranges(own).items()}
    return found


def edges(space: Space, trial: FrozenTrial) -> list[str]:
    """Names of the ranges at whose end the trial stands, or beyond it; an end at 0 is none."""
    found = []
    for name, entry in ranges(space).items():
        if name in trial.params:
            scale = math.log if entry.get("log") else float
            low, high, value = (scale(float(one)) for one in (entry["low"], entry["high"], trial.params[name]))
            share = (value - low) / (high - low)
            if share > 1 - EDGE or (share < EDGE and entry["low"] != 0):
                found.append(name)
    return found


def widened(space: Space, names: list[str]) -> Space:
    """These ranges four times as far at both ends on a logarithmic scale, a quarter further up on a linear one."""
    wide = copy.deepcopy(space)
    for name, entry in ranges(wide).items():
        if name in names and entry.get("log"):
            entry |= {"low": float(entry["low"]) / 4, "high": float(entry["high"]) * 4}
        elif name in names:
            entry["high"] = entry["high"] + (entry["high"] - entry["low"]) / 4
    return wide
