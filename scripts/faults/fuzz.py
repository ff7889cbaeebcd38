"""Fuzzing with random configurations, files of facts and records: each is accepted, or refused in one line."""

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from memlayers.config import TriplesConfig
from memlayers.config.digest import settings
from memlayers.facts import build_world
from memlayers.studies.cli import jobs_from
from memlayers.training.plan import plan
from memlayers.training.record import checksum, read_record, write_json

VALUES = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "0.5",
    "1e9",
    "1e-9",
    "nan",
    "inf",
    "null",
    "true",
    "''",
    "[]",
    "[1,2]",
    "{a:1}",
    "x",
]
NAMES = ["ffn=memory", "ffn=dense", "ffn=ngram", "ffn=memory_plus", "values=lazy_adam", "world=biographies"]
NAMES += ["world=atlas_airports", "arm=oracle", "arm=dense_4x", "match=none", "trainer=cpu_bf16", "arm=engram"]


def judged(name: str, cases: int, attempt: Callable[[random.Random], Any], seed: int = 0) -> dict[str, Any]:
    """Count the attempts that succeed, or raise ValueError with one line."""
    draw, survived, refused = random.Random(seed), 0, 0
    for _ in range(cases):
        try:
            attempt(draw)
            survived += 1
        except ValueError as error:
            message = str(error)
            survived += bool(message) and "\n" not in message
            refused += 1
        except Exception as error:  # a defect
            print(f"{name}: {type(error).__name__}: {error}")
    return {
        "name": f"{name} ({refused} refused in one line)",
        "tried": cases,
        "survived": survived,
        "lost": cases - survived,
    }


def keys_of(config: Any, path: str = "") -> list[str]:
    """The dotted keys of all settings."""
    if isinstance(config, dict):
        return [name for key, value in config.items() for name in keys_of(value, f"{path}.{key}" if path else key)]
    return [path]


def configurations(cases: int) -> dict[str, Any]:
    """Fuzz configurations: up to four random keys, each with a random value."""
    (job,) = jobs_from(["arm=memory"]) or ()
    keys = [key for key in keys_of(settings(job)) if not key.startswith(("axes", "results", "report"))]

    def attempt(draw: random.Random) -> None:
        words = draw.sample(NAMES, draw.randrange(3))
        words += [f"{draw.choice(keys)}={draw.choice(VALUES)}" for _ in range(draw.randrange(1, 5))]
        for job in jobs_from(["training.steps=3", *words]) or ():
            if getattr(job.world, "num_people", 0) < 100_000:  # a world of a million takes a minute
                plan(job)

    return judged("random configurations", cases, attempt)


def tables() -> dict[str, bytes]:
    """A small table in every file format, by file name."""
    rows = [(f"s{i} {i % 3}", relation, f"o{i % 4}", i + 1) for i in range(12) for relation in ("a", "b c")]
    frame = pandas.DataFrame(rows, columns=["subject", "relation", "object", "weight"])
    text, parquet, workbook = io.StringIO(), io.BytesIO(), io.BytesIO()
    csv.writer(text).writerows([frame.columns, *rows])
    frame.to_parquet(parquet)
    frame.to_excel(workbook, index=False)
    lines = "\n".join(json.dumps(dict(zip(frame.columns, row, strict=True))) for row in rows)
    return {
        "f.csv": text.getvalue().encode(),
        "f.tsv": text.getvalue().replace(",", "\t").encode("utf-16"),
        "f.jsonl": lines.encode(),
        "f.csv.gz": gzip.compress(text.getvalue().encode()),
        "f.parquet": parquet.getvalue(),
        "f.xlsx": workbook.getvalue(),
    }


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Damage data at random: truncate it, or change, insert, delete or repeat some bytes."""
    if draw.random() < 0.2:
        return data[: draw.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(changed))
        kind = draw.randrange(4)
        if kind == 0:
            changed[at] = draw.randrange(256)
        elif kind == 1:
            changed[at:at] = draw.randbytes(draw.randrange(1, 4))
        elif kind == 2:
            del changed[at : at + draw.randrange(1, 9)]
        else:
            changed[at:at] = changed[at : at + draw.randrange(1, 40)]
        changed = changed or bytearray(b"x")
    return bytes(changed)


def files(cases: int) -> list[dict[str, Any]]:
    """Fuzz files of facts: a damaged table becomes a world, or is refused."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, content in tables().items():

            def attempt(draw: random.Random, name: str = name, content: bytes = content) -> None:
                path = Path(folder) / name
                path.write_bytes(damaged(content, draw))
                build_world(TriplesConfig(path=str(path)))

            found.append(judged(f"damaged files of facts, {name[1:]}", cases, attempt))
    return found


def records(cases: int) -> dict[str, Any]:
    """Fuzz records: a flipped bit is refused, or does not change the content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        record: dict[str, Any] = {"schema": 2, "status": "ok", "recall": {"exact": 0.1234567, "n": [1, 2, 3]}}
        record["checksum"] = checksum(record)
        write_json(path, record)
        good = path.read_bytes()

        def attempt(draw: random.Random) -> None:
            data = bytearray(good)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
            if read_record(path) != record:
                raise RuntimeError(f"read in silence: {data!r}")

        return judged("a bit flipped in a record", cases, attempt)
