"""The command that reproduces a point of a figure: the study's command that ran it, reduced to its values."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from memlayers.config.digest import flatten
from memlayers.studies.table import text
from memlayers.training.record import Record

VERB = ("python", "scripts/train.py")
Words = dict[str, tuple[str, list[str]]]  # key -> its value as written, and the list of its values


def words_of(command: str) -> Words | None:
    """The overrides of a command such as python scripts/train.py -m arm=dense,memory 'seed=range(3)', by key, without
    flags; None for another script's, and if it cannot be parsed.
    """
    try:
        verb, words = shlex.split(command)[: len(VERB)], shlex.split(command)[len(VERB) :]
        if verb != [*VERB]:
            return None
        words = [word for word in words if not word.startswith("-")]
        return {key: (value, choices(key, value)) for key, _, value in (word.partition("=") for word in words)}
    except (ValueError, HydraException):
        return None


def choices(key: str, words: str) -> list[str]:
    """All values of an override, one if it is no sweep."""
    override: Any = OverridesParser.create().parse_override(f"{key}={words}")
    if override.is_sweep_override():
        return [value.strip("'\"") for value in override.sweep_string_iterator()]
    return [words.strip("'\"")]


def command_of(runs: Sequence[Record], commands: Sequence[Words]) -> str | None:
    """The command for runs of one configuration on several seeds; None if no command of the study matches the first."""
    first = runs[0]
    axes = {key: text(first["axes"].get(key, first[key])) for key in ("world", "arm")}
    axes |= {key: text(value) for key, value in first["axes"].items() if key != "seed"}
    values = {key: text(value) for key, value in flatten(first.get("config", {})).items()}
    values |= axes | {"seed": text(first["seed"])}
    for words in reversed(commands):  # later commands first
        if all(values[key] in map(plain, swept) for key, (_, swept) in words.items() if key in values):
            arm = next((value for value in words.get("arm", ("", []))[1] if plain(value) == axes["arm"]), axes["arm"])
            fixed = {key: written for key, (written, _) in words.items() if key not in (*axes, "seed")}
            overrides = fixed | axes | {"arm": arm, "seed": ",".join(str(run["seed"]) for run in runs)}
            flags = ["-m"] if len(runs) > 1 and "experiment" not in fixed else []
            return shlex.join([*VERB, *flags, *(f"{key}={value}" for key, value in overrides.items())])
    return None


def plain(value: str) -> str:
    """The name of an arm: bilinear for the user's file mine/bilinear.py."""
    return Path(value).stem if value.endswith(".py") else value
