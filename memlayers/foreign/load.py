"""Swapped models of transformers, back from the folder that save_pretrained wrote."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from memlayers.foreign.remembered import FORMAT, remembering
from memlayers.foreign.swapped import Swap
from memlayers.layers import LAYERS
from memlayers.training.restore import filled


def load_swapped(path: str | Path, layers: tuple[type, ...] = (), **settings: Any) -> Any:
    """A swapped model that save_pretrained wrote into this folder; `settings` as for from_pretrained.

    `layers`: settings' classes of the user's own layers in it. Raises ValueError, in one line, for a folder without
    such a model, one of another format, weights that are missing or too many, and where transformers is not there.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f'load_swapped needs transformers ({error}); accepted: pip install "memlayers[hf]"') from None
    folder = Path(path)
    said = read_config(folder)
    swaps = [restored(one, layers) for one in said["memlayers"]["swaps"]]
    (name,) = said.pop("architectures")
    base = getattr(transformers, name, None)
    if base is None:
        raise ValueError(f"{folder}: transformers {transformers.__version__} has no {name}; accepted: one that has")
    plain = transformers.AutoConfig.for_model(said.pop("model_type").removeprefix("memlayers_"), **said)

    class Rebuilt(base):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any, *rest: Any, **more: Any):
            super().__init__(config, *rest, **more)
            for one in swaps:
                one.put_into(self)

    try:
        config = remembering(type(plain), plain.__dict__)
        model, found = Rebuilt.from_pretrained(folder, config=config, output_loading_info=True, **settings)
    except (OSError, RuntimeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0]
        raise ValueError(f"{folder}: weights cannot be read ({why}); accepted: as save_pretrained wrote them") from None
    if wrong := sorted({*found["missing_keys"], *found["unexpected_keys"]}):
        raise ValueError(f"{folder}: {len(wrong)} tensors missing or unknown, such as {wrong[0]}; accepted: none")
    model.__class__ = base  # its layers are swapped, and all else is as in its own class
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """Of a swapped model in the format that this version reads."""
    accepted = "accepted: the folder of a swapped model's save_pretrained"
    try:
        said: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no model there ({type(error).__name__}); {accepted}") from None
    if not isinstance(said, dict) or "memlayers" not in said:
        raise ValueError(f"{folder}: a model without layers of memlayers; {accepted}")
    kept = said["memlayers"]
    if kept["format"] != FORMAT:
        made_by, found = kept["version"], kept["format"]
        raise ValueError(f"{folder}: saved by memlayers {made_by}; accepted: format {FORMAT}, not {found}")
    del said["transformers_weights"]
    return said


def restored(said: dict[str, Any], layers: tuple[type, ...]) -> Swap:
    kinds = {kind.__name__: kind for kind in (*LAYERS, *layers)}
    return Swap(**said | {"ffn": filled(object, said["ffn"], kinds)})
