"""Records: one JSON file a run, written atomically, never with a NaN."""

import hashlib
import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.config.distil import teachers

Record = dict[str, Any]
SCHEMA = 2  # raised when the format of records or the meaning of a default changes


def record_path(config: RunConfig) -> Path:
    """The path of a run's record: results/study/world/arm-s0-digest.json."""
    folder = Path(config.results) / config.study / config.world.name
    return folder / f"{config.arm}-s{config.seed}-{digest(config)}.json"


def model_path(config: RunConfig) -> Path:
    """The path of the trained model of save_model=true, beside the record."""
    return record_path(config).with_suffix(".safetensors")


def write_json(path: Path, content: Any) -> None:
    """Write JSON as `write_text` does."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old one or the new one. Raises ValueError if that fails."""
    scratch = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        why = f"cannot be written ({error.strerror}); accepted: a writable folder"
        raise ValueError(f"results={path.parent}: {why}") from None


def with_checksum(record: Record) -> Record:
    """The record with the checksum of its JSON form."""
    return record | {"checksum": checksum(json.loads(json.dumps(record)))}


def keep_record(path: Path, record: Record) -> None:
    """Write the record with its checksum; if that fails, to a temporary folder, which ValueError names."""
    record |= with_checksum(record)
    try:
        write_json(path, record)
    except ValueError as error:
        other = Path(tempfile.mkdtemp(prefix="memlayers-")) / path.name
        write_json(other, record)
        raise ValueError(f"{error}; the record of the run is kept: mv {other} {path}") from None


def check_writable(folder: Path) -> None:
    """Raises ValueError for a folder in which no record can be written."""
    write_json(folder / ".writable", None)
    (folder / ".writable").unlink(missing_ok=True)  # another run may check the same folder


def read_record(path: Path) -> Record | None:
    """The record, or None without a file. Raises ValueError for a damaged file or one that is not a record."""
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    record = parsed(text, path)
    if "checksum" not in record:
        raise ValueError(f"{path}: damaged, as it has no checksum; delete it to run again")
    return record


def parsed(text: bytes, where: object) -> Record:
    """The record in a JSON text. Raises ValueError if it is none, has another schema, or its checksum is wrong."""
    try:
        record: Record = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{where}: not a record ({error}); delete it to run again") from None
    if not isinstance(record, dict) or "status" not in record:
        raise ValueError(f"{where}: not a record (no status); delete it to run again")
    if "checksum" in record and record["checksum"] != checksum(record):
        raise ValueError(f"{where}: damaged, as its checksum is another; delete it to run again")
    schema = record.get("schema", 1)
    if schema != SCHEMA:
        raise ValueError(
            f"{where}: a record of schema {schema}; accepted: {SCHEMA}; read it with the code of its commit "
            f"({record.get('code', {}).get('commit')}), or delete it to run again"
        )
    return record


def checksum(record: Record) -> str:
    """SHA-256 (16 hex digits) of a record without its checksum, independent of the order of keys."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def finished(config: RunConfig) -> Record | None:
    """The record of a successful run, or None if the run is to be done: no record, a failed one, or its model is
    missing. Raises ValueError if its teacher, whose digest is part of its file name, does not exist.
    """
    finished_teacher(config)
    record = read_record(record_path(config))
    if record is None or record["status"] != "ok" or (config.save_model and not model_path(config).is_file()):
        return None
    return record


def finished_teacher(config: RunConfig) -> Record | None:
    """The record of the teacher's run, with its file as `path`; None for a run without distillation.

    Raises ValueError unless exactly one finished run with a model matches.
    """
    if config.distil.teacher is None:
        return None
    paths = teachers(config)
    record = read_record(paths[0].with_suffix(".json")) if len(paths) == 1 else None
    if record is None or record["status"] != "ok":
        study, _, arm = config.distil.teacher.partition("/")
        names = ", ".join(path.stem for path in paths) or "none"
        raise ValueError(
            f"distil.teacher={config.distil.teacher}: finished runs with save_model=true of seed {config.seed} in "
            f"{config.world.name} below {config.results}: {names}; accepted: one, as study={study} arm={arm} "
            f"seed={config.seed} save_model=true leaves it"
        )
    return record | {"path": str(paths[0])}


CLOCKS = 0.05  # seconds by which a file's time may be behind the clock


def ended(path: Path, began: float) -> Record | None:
    """The record of a run that ended after `began` (seconds since 1970), else None."""
    record = read_record(path)
    return None if record is None or path.stat().st_mtime < began - CLOCKS else record
