"""A trained model in a file: its parameters, and the settings from which all around them is made again."""

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
    """Parameters, each once, and the settings from which `load` builds the model around them.

    All processes of a run call together, and the first one writes. Raises ValueError in all of them where it cannot.
    """
    kept = {key: value for key, value in settings(config).items() if key not in ("axes", "report", "results", "logger")}
    said = {"memlayers": __version__, "schema": str(SCHEMA), "text": fingerprint(text), "settings": json.dumps(kept)}
    path, scratch = model_path(config), model_path(config).with_suffix(".safetensors.tmp")
    parts = parts_of_file(model, said) if config.shard_tables else iter(())

    def write() -> None:
        try:
            if config.shard_tables:
                with scratch.open("wb") as file:
                    file.writelines(parts)
            else:
                save_model(model, str(scratch), metadata=said)
            scratch.replace(path)
        except (OSError, SafetensorError) as error:
            scratch.unlink(missing_ok=True)
            says = f"save_model=true: {path}: cannot be written ({error}); accepted: a writable folder"
            raise ValueError(says) from None
        finally:
            run_through(parts)  # also after a failure, as the others wait at each

    if not ranks.is_first():
        run_through(parts)
    ranks.of_first(write)


def run_through(parts: Iterator[object]) -> None:
    for _ in parts:
        pass


def fingerprint(text: Text) -> str:
    """Of the facts, all words and how subjects are spelt, so that a model is never asked about another world than it
    learnt.
    """
    world = text.world
    spelt = {"subjects": world.subjects, **world.views}
    content = [text.vocabulary, world.facts.tolist(), {name: table.tolist() for name, table in spelt.items()}]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def load(
    path: str | Path, layers: tuple[type, ...] = (), kernels: Kernels | None = None
) -> tuple[RunConfig, Text, Transformer]:
    """The model of a run with save_model=true, by its file or its record's; `layers`: settings of the user's own;
    `kernels`: by default the fastest.

    Raises ValueError, in one line, for a file that is none, or of another version, or whose world has changed.
    """
    file = Path(path).with_suffix(".safetensors")
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        why = "not there" if not file.exists() else f"not a model ({error})"
        raise ValueError(f"{file}: {why}; accepted: the file of a run with save_model=true") from None
    if said.get("schema") != str(SCHEMA):
        version = said.get("memlayers", "something else")
        raise ValueError(f"{file}: saved by memlayers {version}; accepted: a model of schema {SCHEMA}, trained anew")
    config = restored(json.loads(said["settings"]), layers)
    made = plan(config)
    if fingerprint(made.text) != said["text"]:
        raise ValueError(f"{file}: the facts of world {config.world.name} have changed since; accepted: as they were")
    questions = made.text.questions()
    kernels = kernels or choose("auto")
    model = build_model(made.matched.model, len(made.text.vocabulary), None, kernels, True, questions)
    load_model(model, str(file))
    return config, made.text, model
