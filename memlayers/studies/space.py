"""conf/space/: what scripts/tune.py searches for an arm, and where it begins."""

from typing import Any, cast

from omegaconf import OmegaConf
from optuna.trial import BaseTrial

from memlayers.config import RunConfig
from memlayers.studies.files import CONF

Space = dict[str, dict[str, Any]]


def space_of(config: RunConfig) -> Space:
    """The search space of an arm: conf/space/default.yaml, tables.yaml or dense.yaml, and its own."""
    layers = (config.model.ffn, config.model.residual, config.model.values)
    kind = "tables" if any(hasattr(layer, "pool") for layer in layers) else "dense"
    merged: Space = {}
    for name in ("default", kind, config.arm):
        path = CONF / "space" / f"{name}.yaml"
        if path.is_file():
            merged |= cast(Space, OmegaConf.to_container(OmegaConf.load(path)))
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
