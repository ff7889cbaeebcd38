"""Which settings decide a run's numbers, and the digest that says whether two runs are the same experiment."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from memlayers.config.distil import DIGEST, teachers
from memlayers.layers import Dense
from memlayers.running_text import content_digest

NAMES_AND_PLACES = ("study", "arm", "axes", "report", "results", "logger", "save_model", "checkpoint_minutes")
FOR_OTHERS = ("rates", "num_keys")  # decide by what other settings make of them
NAMED = ("ProseConfig", "CorpusConfig")  # with their kind, as records have it, though none other may stand there
NOT_DECISIVE = ("kernels", "seed", "progress", *FOR_OTHERS, *NAMES_AND_PLACES)


def digest(config: Any) -> str:
    """12 hexadecimal digits that two RunConfigs share exactly when they are the same experiment, but for the seed.

    It is of what differs from the defaults in the code, so that a new setting changes no digest. A default that changes
    its value makes old records mean something else: training/record.py then counts up its SCHEMA.
    """
    text = json.dumps(decisive(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST]


def decisive(config: Any) -> dict[str, Any]:
    """The settings that differ from their defaults and have an effect, nested; files stand as their contents, and a
    teacher as its digest.
    """
    without = without_effect(config)
    found = {key: pruned(value, key, without) for key, value in changed(config).items() if key not in NOT_DECISIVE}
    found = {key: value for key, value in found.items() if value != {}}
    for key in ("path", "templates"):
        name = found["world"].get(key)
        if isinstance(name, str) and Path(name).is_file():
            found["world"][key] = "sha256:" + hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    if config.world.corpus.share > 0:  # the built-in sources, too: another Python has another text
        found["world"]["corpus"]["sources"] = [content_of(source) for source in config.world.corpus.sources]
    if config.distil.teacher is not None and len(kept := teachers(config)) == 1:
        found["distil"]["teacher"] = kept[0].stem[-DIGEST:]
    return found


def content_of(source: str) -> str:
    """Of running text; the name of a source that cannot be read, which the run then says."""
    try:
        return "sha256:" + content_digest(source)
    except ValueError:
        return source


def without_effect(config: Any) -> set[str]:
    """Dotted keys whose value changes nothing in this run."""
    found = {"world.name"}
    model, match = config.model, config.match
    extras = [one for one in (model.residual, model.values, model.before, model.beside) if one is not None]
    if not model.has_tables and all(is_ours(layer) for layer in [model.ffn, *extras]):
        found |= {"optim.values", "optim.clip_values", "optim.roles.memory_key", "model.value_scale"}
        found |= {"quantize.tables", "quantize.noise"}
    if isinstance(model.ffn, Dense) and (match.reference is None or isinstance(match.reference, Dense)):
        found |= {"model.blocks", "model.placement"}
    widths = {"quantize.weights": config.quantize.weights, "quantize.tables": config.quantize.tables}
    if all(width == "float32" for key, width in widths.items() if key not in found):
        found.add("quantize.when")
    if config.distil.teacher is None:
        found |= {"distil.weight", "distil.tokens", "distil.temperature"}
    elif config.distil.weight == 0:
        found |= {"distil.tokens", "distil.temperature"}
    elif config.training.loss == "answers":
        found.add("distil.tokens")
    if config.federated.way is None:
        found |= {"federated.clients", "federated.rounds", "federated.shared"}
    else:
        found |= {"training.probes", "training.max_probed_facts"}
        if config.federated.way == "alone" and not model.has_tables:  # nothing is merged, nor are rows read in a round
            found.add("federated.rounds")
    if not extras:
        found.add("model.extra_blocks")
    if config.training.steps is not None:
        found.add("training.exposures")
    for key, schedule in (
        ("optim", config.optim.schedule),
        ("optim.values", getattr(config.optim.values, "schedule", None)),
    ):
        if schedule is not None and schedule.shape == "constant":
            found.add(f"{key}.schedule.final")
    return found


def settings(value: Any) -> Any:
    """Nested dictionaries of a dataclass and those in it; a layer, a rule and a world say which they are by `kind`."""
    if isinstance(value, dict):
        return {key: settings(one) for key, one in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    own = {field.name: settings(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return kind_of(value) | own


def changed(value: Any, default: Any = None) -> Any:
    """The same of what is not as in `default`; of a dataclass of another class than that, as in its own defaults."""
    if isinstance(value, dict):
        old = default if isinstance(default, dict) else {}
        left_out = {key: None for key in old if key not in value}
        return left_out | {k: changed(one, old.get(k)) for k, one in value.items() if k not in old or one != old[k]}
    if not dataclasses.is_dataclass(value):
        return value
    found = kind_of(value)
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        usual = getattr(default, field.name) if type(default) is type(value) else default_of(field)
        if own != usual:
            found[field.name] = changed(own, usual)
    return found


def default_of(field: Any) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def kind_of(value: Any) -> dict[str, str]:
    """{"kind": "Memory"} where one of several kinds may stand; of a user's own file also what is in it."""
    if is_ours(value):
        name = type(value).__name__
        chosen = hasattr(value, "build") or type(value).__module__ == "memlayers.config.worlds" or name in NAMED
        return {"kind": name} if chosen else {}
    source = Path(str(sys.modules[type(value).__module__].__file__)).read_bytes()
    return {"kind": type(value).__name__, "source": "sha256:" + hashlib.sha256(source).hexdigest()[:16]}


def is_ours(value: Any) -> bool:
    return type(value).__module__.startswith("memlayers.")


def pruned(value: Any, key: str, without: set[str]) -> Any:
    """What is left without some dotted keys, and without dictionaries that they empty."""
    if not isinstance(value, dict):
        return value
    kept = {name: pruned(own, f"{key}.{name}", without) for name, own in value.items()}
    return {name: own for name, own in kept.items() if f"{key}.{name}" not in without and own != {}}


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every leaf of nested dictionaries."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
