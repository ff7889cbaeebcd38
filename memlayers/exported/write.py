"""A trained model as a folder of transformers, with its tokenizer and the questions for lm-eval."""

from pathlib import Path

from memlayers.exported.config import config_of
from memlayers.exported.model import MemlayersForCausalLM
from memlayers.exported.task import tasks_of
from memlayers.exported.tokenizer import tokenizer_of
from memlayers.layers.oracle import FactTable
from memlayers.trained import Trained
from memlayers.training.plan import plan


def export(trained: Trained, folder: Path) -> list[str]:
    """Write all files into an empty or new folder; returns their names.

    Raises ValueError, in one line, for a folder that is not empty, a model that needs the facts of its world, and a
    vocabulary that cannot be written as text.
    """
    if any(isinstance(layer, FactTable) for layer in trained.model.modules()):
        raise ValueError("an oracle is given the facts of its world, and has no model of its own; accepted: other arms")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; accepted: a new or empty folder")
    tokenizer = tokenizer_of(trained.text)
    files = tasks_of(trained, tokenizer)
    model = MemlayersForCausalLM(config_of(plan(trained.config).matched.model, len(trained.text.vocabulary)))
    model.transformer.load_state_dict(trained.model.state_dict())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}); accepted: a writable folder") from None
    return sorted(path.name for path in folder.iterdir())
