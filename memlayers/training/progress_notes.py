"""The small file in which a run under way says how far it is."""

import json
from pathlib import Path
from typing import Any


def partial_path(record: Path) -> Path:
    """Where a run that has not finished leaves its notes."""
    return record.with_suffix(".running")


def read_partial(record: Path) -> dict[str, Any] | None:
    """The notes of a run that is under way, or None."""
    try:
        note = json.loads(partial_path(record).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return note if isinstance(note, dict) else None
