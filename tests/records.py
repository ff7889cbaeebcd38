"""Records as runs leave them, made up."""

import json
from pathlib import Path
from typing import Any

from memlayers.config.run import ReportConfig
from memlayers.studies.layout import read_layout
from memlayers.training.record import with_checksum


def record(arm: str = "memory", seed: int = 0, recall: float = 0.5, **changes: Any) -> dict[str, Any]:
    """A run that ended well; `axes`, `config`, `error` and other keys as given."""
    flops = changes.pop("flops", 1e12)
    held_out, seconds = changes.pop("held_out", None), changes.pop("seconds", 10.0)
    curve = [
        {"step": 5 * i, "exposures": 2.0 * i, "recall": recall * i / 2, "surprise": 1.0, "loss": 1.0} for i in (1, 2)
    ]
    made = {
        "schema": 2,
        "study": "s",
        "world": "w",
        "arm": arm,
        "seed": seed,
        "axes": {"arm": arm, "seed": seed},
        "digest": f"digest-{arm}",
        "config": {"model": {"ffn": {"kind": arm}}},
        "code": {"version": "1", "commit": "abc", "dirty": False, "diff": None},
        "machine": {"processor": "p"},
        "status": "ok",
        "error": None,
        "cost": {"flops_per_token": flops / 1e7, "training_flops": flops, "params": 50_000},
        "training": {"steps": 10, "exposures": 4.0, "final_loss": 0.1, "curve": curve, "plateau": None},
        "recall": {"exact": recall, "held_out": held_out, "bits_per_parameter": 1.5, "floor": 0.1},
        "timing": {"seconds": seconds, "tokens_per_second": 1e4},
    } | changes
    if made["error"] is not None:
        made = {key: made[key] for key in made if key not in ("cost", "training", "recall", "timing")} | {
            "status": "failed"
        }
    return made


def write(folder: Path, *records: dict[str, Any]) -> Path:
    """Each in a file of its own, as runs do."""
    for one in records:
        path = folder / one["world"] / f"{one['arm']}-s{one['seed']}-{abs(hash(one['digest']))}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(with_checksum(one)))
    return folder


def layout(**changes: Any) -> dict[str, Any]:
    """The default layout of a study, and what is not as in it."""
    found = read_layout(Path("/nowhere")) | changes
    assert found.keys() == {*vars(ReportConfig()), "commands", "verdict"}
    return found
