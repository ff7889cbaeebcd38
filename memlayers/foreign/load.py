"""Loads swapped models of transformers from the folder of their save_pretrained."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from memlayers.foreign.remembered import FORMAT, remembering
from memlayers.foreign.swapped import Swap
from memlayers.layers import LAYERS
from memlayers.training.restore import filled


def load_swapped(path: str | Path, layers: tuple[type, ...] = (), **settings: Any) -> Any:
    """Load a swapped model from the folder of its save_pretrained; `settings` as for from_pretrained.

    `layers`: settings classes of the user's layers in it. Raises ValueError, in one line, for a folder without such a
    model, another format, missing or unexpected tensors, and without transformers.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f'load_swapped needs transformers ({error}); accepted: pip install "memlayers[hf]"') from None
    folder = Path(path)
    content = read_config(folder)
    try:
        swaps = [restored(saved, layers) for saved in content["memlayers"]["swaps"]]
        name, kind = content.pop("architectures")[0], content.pop("model_type").removeprefix("memlayers_")
        base = getattr(transformers, name, None)
    except (AttributeError, LookupError, TypeError) as error:
        raise damaged(folder, error) from None
    if base is None:
        raise ValueError(f"{folder}: transformers {transformers.__version__} has no {name}; accepted: one that has")
    if taken := {"config", "output_loading_info"} & settings.keys():
        raise ValueError(f"{min(taken)} is set by load_swapped; accepted: other settings of from_pretrained")

    class Rebuilt(base):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any, *rest: Any, **more: Any):
            super().__init__(config, *rest, **more)
            for swap in swaps:
                swap.put_into(self)

    try:
        plain = transformers.AutoConfig.for_model(kind, **content)
        config = remembering(type(plain), plain.__dict__)
        model, info = Rebuilt.from_pretrained(folder, config=config, output_loading_info=True, **settings)
    except (OSError, RuntimeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder}: weights cannot be read ({why}); accepted: as save_pretrained wrote them") from None
    except Exception as error:  # of every kind, as transformers checks some values of a config and trips over others
        raise damaged(folder, error, settings) from None
    if wrong := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise ValueError(f"{folder}: {len(wrong)} tensors missing or unknown, such as {wrong[0]}; accepted: none")
    model.__class__ = base  # only the layers differ from its own class
    return model


def damaged(folder: Path, error: Exception, settings: Iterable[str] = ()) -> ValueError:
    """What to raise for a config, or settings of the caller's, that no model can be loaded with."""
    why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if named := ", ".join(settings):
        return ValueError(f"{named}, or {folder / 'config.json'}: {why}; accepted: what from_pretrained accepts")
    return ValueError(f"{folder / 'config.json'}: damaged ({why}); accepted: as save_pretrained wrote it")


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a swapped model. Raises ValueError for another model, and for another format."""
    accepted = "accepted: the folder of a swapped model's save_pretrained"
    try:
        content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no model there ({type(error).__name__}); {accepted}") from None
    if not isinstance(content, dict) or "memlayers" not in content:
        raise ValueError(f"{folder}: a model without layers of memlayers; {accepted}")
    kept = content["memlayers"] if isinstance(content["memlayers"], dict) else {}
    if kept.get("format") != FORMAT:
        made_by, format_ = kept.get("version"), kept.get("format")
        raise ValueError(f"{folder}: saved by memlayers {made_by}; accepted: format {FORMAT}, not {format_}")
    content.pop("transformers_weights", None)
    return content


def restored(saved: dict[str, Any], layers: tuple[type, ...]) -> Swap:
    """The swap of these settings from a config."""
    kinds = {kind.__name__: kind for kind in (*LAYERS, *layers)}
    return Swap(**saved | {"ffn": filled(object, saved["ffn"], kinds)})
