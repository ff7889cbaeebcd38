"""The command behind a point of a figure: of the study's own commands the one that ran it, with its values alone."""

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
Words = dict[str, tuple[str, list[str]]]  # key -> as it is written, and the values that it sweeps over, or its one


def words_of(command: str) -> Words | None:
    """Of python scripts/train.py -m arm=dense,memory 'seed=range(3)', without flags; None for what is no command."""
    try:
        words = [word for word in shlex.split(command)[len(VERB) :] if not word.startswith("-")]
        return {key: (value, choices(key, value)) for key, _, value in (word.partition("=") for word in words)}
    except (ValueError, HydraException):
        return None


def choices(key: str, words: str) -> list[str]:
    override: Any = OverridesParser.create().parse_override(f"{key}={words}")
    if override.is_sweep_override():
        return [one.strip("'\"") for one in override.sweep_string_iterator()]
    return [words.strip("'\"")]


def command_of(runs: Sequence[Record], commands: Sequence[Words]) -> str | None:
    """Of runs of one configuration on several seeds; None where no command of the study made the first of them."""
    first = runs[0]
    axes = {key: text(first["axes"].get(key, first[key])) for key in ("world", "arm")}
    axes |= {key: text(value) for key, value in first["axes"].items() if key != "seed"}
    values = {key: text(value) for key, value in flatten(first.get("config", {})).items()}
    values |= axes | {"seed": text(first["seed"])}
    for words in reversed(commands):  # a later one made what an earlier one did not
        if all(values[key] in map(plain, swept) for key, (_, swept) in words.items() if key in values):
            arm = next((one for one in words.get("arm", ("", []))[1] if plain(one) == axes["arm"]), axes["arm"])
            fixed = {key: written for key, (written, _) in words.items() if key not in (*axes, "seed")}
            said = fixed | axes | {"arm": arm, "seed": ",".join(str(one["seed"]) for one in runs)}
            flags = ["-m"] if len(runs) > 1 and "experiment" not in fixed else []
            return shlex.join([*VERB, *flags, *(f"{key}={value}" for key, value in said.items())])
    return None


def plain(value: str) -> str:
    """The name of an arm that is a file of the user's: bilinear for mine/bilinear.py."""
    return Path(value).stem if value.endswith(".py") else value
