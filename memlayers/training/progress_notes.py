"""Reading the progress file of a run under way."""

import json
from pathlib import Path
from typing import Any


def partial_path(record: Path) -> Path:
    """The progress file of a run, beside its record."""
    return record.with_suffix(".running")


def read_partial(record: Path) -> dict[str, Any] | None:
    """The progress of a run under way, or None without a readable file."""
    try:
        note = json.loads(partial_path(record).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return note if isinstance(note, dict) else None
