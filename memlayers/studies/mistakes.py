"""One line for each mistake in a command line: the override that is wrong, and what would be accepted."""

import difflib
import traceback
from collections.abc import Iterator
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, ListConfig, OmegaConf, StringNode
from omegaconf.errors import OmegaConfBaseException, ValidationError

from memlayers.studies.files import CONF

ERRORS = (HydraException, OmegaConfBaseException, AssertionError)
KINDS = {
    BooleanNode: "true or false",
    IntegerNode: "a whole number",
    FloatNode: "a number",
    StringNode: "text",
    ListConfig: "a list, such as [a,b]",
}
TABLES = ("rates", "space")  # folders of conf/ that hold data, not config groups


def is_mistake(error: Exception) -> bool:
    """Whether an error is the user's mistake; an AssertionError is one if OmegaConf raises it (for null nodes)."""
    if not isinstance(error, AssertionError):
        return True
    return "/omegaconf/" in traceback.extract_tb(error.__traceback__)[-1].filename


def explain(overrides: list[str], error: Exception) -> str:
    """One line for a failed composition: the override that is wrong, and the nearest accepted one."""
    parser = OverridesParser.create()
    good: list[str] = []
    for line in sorted(overrides, key=lambda line: not options(parser.parse_override(line).key_or_group)):
        # groups first, as other keys may exist only with their choice
        try:
            compose("train", [*good, line])
        except ERRORS as failure:
            if not is_mistake(failure):
                raise
            override = parser.parse_override(line)
            key = override.key_or_group.partition("@")[0]
            known = known_keys(good)
            groups = options(key)
            if groups and not key.startswith("hydra/") and not isinstance(override.value(), dict):
                nearest = difflib.get_close_matches(str(override.value()), groups, n=1)
                hint = f"did you mean {nearest[0]}? " if nearest else ""
                return f"{line}: no such choice; {hint}accepted: {', '.join(groups)}"
            if key.startswith("hydra/"):
                extra = 'pip install -e ".[submitit]" -c constraints.txt'
                return f"{line}: no such choice; accepted: what is installed ({extra} brings slurm)"
            if key not in known and key.startswith("trainer."):
                return f"{line}: not set so far; accepted: +{line}, if lightning.Trainer has such an argument"
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {nearest[0]}?" if nearest else f"accepted: {', '.join(top_level(known))}"
                return f"{line}: unknown key {key!r}; {hint}"
            return f"{line}: {said(compose('train', good), override, failure)}"
        good.append(line)
    return one_line(error)


def parsed_word(parser: OverridesParser, word: str) -> Override:
    """An override, parsed. Raises ValueError, in one line, for one that Hydra's grammar does not allow."""
    try:
        return parser.parse_override(word)
    except HydraException as error:
        form = "KEY=VALUE, with brackets closed, and with quotes in VALUE around any of , = [ {"
        raise ValueError(f"{word}: cannot be read ({one_line(error)}); accepted: {form}") from None


def said(config: DictConfig, override: Override, failure: Exception) -> str:
    """What is wrong with an override whose key exists in `config`: the kind that is accepted, if the key has one."""
    place, _, name = override.key_or_group.rpartition(".")
    parent = OmegaConf.select(config, place) if place else config
    node: Any = parent._get_node(name) if isinstance(parent, DictConfig) else None
    words = next((words for kind, words in KINDS.items() if isinstance(node, kind)), None)
    is_item = isinstance(node, ListConfig) and isinstance(override.value(), list)  # one of a list's items is wrong
    is_value = override.type == OverrideType.CHANGE and isinstance(failure.__cause__, ValidationError)
    if words is None or is_item or not is_value or node._metadata.ref_type is Any:
        return one_line(failure)
    return f"not of its kind; accepted: {words}" + (", or null" if node._is_optional() else "")


def known_keys(overrides: list[str]) -> list[str]:
    """All keys and groups that can be set, for suggestions."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if OmegaConf.is_dict(node):
            for name in node:
                yield f"{prefix}{name}"
                child = node._get_node(name)
                yield from walk(child, f"{prefix}{name}.")

    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in (*TABLES, "hydra")]
    return sorted({*walk(compose("train", overrides), ""), *groups})


def top_level(keys: list[str]) -> list[str]:
    return [key for key in keys if "." not in key]


def options(group: str) -> list[str]:
    """The choices of a config group; [] for no group."""
    if group in TABLES:
        return []
    choices = GlobalHydra.instance().config_loader().get_group_options(group)
    return sorted({name for name in choices if not name.endswith("_schema")})


def one_line(error: Exception) -> str:
    """The first line of an error of Hydra or OmegaConf, with the key if it lacks that."""
    cause = error.__cause__ if str(error).startswith("Error merging override") and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]
