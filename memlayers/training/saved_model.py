"""A trained model in a file of safetensors: parameters, and the settings from which the model is rebuilt."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from memlayers import __version__
from memlayers.config import RunConfig
from memlayers.config.digest import settings
from memlayers.kernels import Kernels, choose
from memlayers.model import Transformer, build_model
from memlayers.text import Text
from memlayers.training import ranks
from memlayers.training.plan import plan
from memlayers.training.record import SCHEMA, model_path
from memlayers.training.restore import restored
from memlayers.training.whole_model import parts_of_file


def save(model: Transformer, text: Text, config: RunConfig) -> None:
    """Save the parameters, each once, and the settings from which `load` rebuilds the model.

    All processes of a run call together, and rank 0 writes. Raises ValueError in all of them if it cannot.
    """
    kept = {key: value for key, value in settings(config).items() if key not in ("axes", "report", "results", "logger")}
    metadata = {
        "memlayers": __version__,
        "schema": str(SCHEMA),
        "text": fingerprint(text),
        "settings": json.dumps(kept),
    }
    path, scratch = model_path(config), model_path(config).with_suffix(".safetensors.tmp")
    parts = parts_of_file(model, metadata) if config.shard_tables else iter(())

    def write() -> None:
        try:
            if config.shard_tables:
                with scratch.open("wb") as file:
                    file.writelines(parts)
            else:
                save_model(model, str(scratch), metadata=metadata)
            scratch.replace(path)
        except (OSError, SafetensorError) as error:
            scratch.unlink(missing_ok=True)
            message = f"save_model=true: {path}: cannot be written ({error}); accepted: a writable folder"
            raise ValueError(message) from None
        finally:
            exhaust(parts)  # also after a failure, as the other processes wait at each part

    if not ranks.is_first():
        exhaust(parts)
    ranks.broadcast_from_rank0(write)


def exhaust(parts: Iterator[object]) -> None:
    """Take the remaining parts, so that this process joins the gathers of all others."""
    for _ in parts:
        pass


def fingerprint(text: Text) -> str:
    """A hash of facts, vocabulary and spelling of subjects: `load` refuses a model whose world has changed."""
    world = text.world
    spellings = {"subjects": world.subjects, **world.views}
    content = [text.vocabulary, world.facts.tolist(), {name: table.tolist() for name, table in spellings.items()}]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def load(
    path: str | Path, layers: tuple[type, ...] = (), kernels: Kernels | None = None
) -> tuple[RunConfig, Text, Transformer]:
    """Load a model that save_model=true kept, by its path or its record's. `layers` are settings classes of the user's
    layers; `kernels` are by default the fastest.

    Raises ValueError, in one line, for a missing or invalid file, another schema, and a world that has changed.
    """
    file = Path(path).with_suffix(".safetensors")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        why = "not there" if not file.exists() else f"not a model ({error})"
        raise ValueError(f"{file}: {why}; accepted: the file of a run with save_model=true") from None
    if metadata.get("schema") != str(SCHEMA):
        version = metadata.get("memlayers", "something else")
        raise ValueError(f"{file}: saved by memlayers {version}; accepted: a model of schema {SCHEMA}, trained anew")
    try:
        text, config = metadata["text"], restored(json.loads(metadata["settings"]), layers)
        rebuilt = plan(config)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: damaged settings ({error}); accepted: the file as it was written") from None
    if fingerprint(rebuilt.text) != text:
        raise ValueError(f"{file}: the facts of world {config.world.name} have changed since; accepted: as they were")
    questions = rebuilt.text.questions()
    kernels = kernels or choose("auto")
    model = build_model(rebuilt.matched.model, len(rebuilt.text.vocabulary), None, kernels, True, questions)
    try:
        load_model(model, str(file))
    except (RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{file}: damaged parameters ({why}); accepted: the file as it was written") from None
    return config, rebuilt.text, model
