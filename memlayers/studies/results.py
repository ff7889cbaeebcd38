"""Committed studies in results/: the records of each in one file, its table and its figure."""

import json
from pathlib import Path

from memlayers.config.digest import flatten
from memlayers.studies.figure import draw
from memlayers.studies.frame import RECORDS, framed, read_all
from memlayers.studies.layout import read_layout, save_layout
from memlayers.studies.table import markdown, table
from memlayers.training.record import Record, write_text


def commit(folder: Path, results: Path) -> Path:
    """Add the records of a study in results/local/STUDY to results/STUDY; returns that folder.

    Raises ValueError, and changes nothing, for records of uncommitted code, of several studies, and for
    digests that differ from those that are there.
    """
    fresh = list(read_all(folder))
    studies = sorted({record["study"] for record in fresh})
    if len(studies) != 1:
        raise ValueError(f"{folder}: records of {', '.join(studies) or 'no study'}; accepted: those of one study")
    for record in fresh:
        codes = [record["code"], *(one["code"] for one in record.get("earlier", ()))]
        if dirty := [code for code in codes if code["dirty"] or code["commit"] is None]:
            raise ValueError(
                f"{folder}: {name_of(record)} was run with uncommitted code (diff {dirty[0]['diff']}); accepted: "
                "records of committed code: commit it, delete the record and run again"
            )
    target = results / studies[0]
    there = list(read_all(target)) if target.is_dir() else []
    layout = read_layout(folder)
    rows = set(layout["rows"])  # also those that every command fixes
    swept = sorted({key for record in [*there, *fresh] for key in record["axes"]} | rows)
    kept = {place(record, swept): record for record in there}
    for record in fresh:
        old = kept.get(place(record, swept))
        if old is not None and old["digest"] != record["digest"]:
            raise ValueError(
                f"{folder}: {name_of(record)} has digest {record['digest']}, and {target / RECORDS} has "
                f"{old['digest']}; accepted: the same configuration, or a study=NAME of its own"
            )
        if old is None or old["status"] != "ok":
            kept[place(record, swept)] = record
    before = read_layout(target)
    commands = [*before["commands"], *layout["commands"]]
    target.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(kept[key], sort_keys=True, allow_nan=False) for key in sorted(kept)]
    write_text(target / RECORDS, "\n".join(lines) + "\n")
    written = {"verdict": before["verdict"] or layout["verdict"]}
    save_layout(target, layout | written | {"commands": list(dict.fromkeys(commands))})
    return target


def place(record: Record, swept: list[str]) -> tuple[str, ...]:
    """The key by which a record is unique in its study, and sorted: world, arm, values of all swept axes, seed."""
    config = flatten(record.get("config", {}))
    others = [key for key in swept if key not in ("world", "arm", "seed")]
    axes = {key: record["axes"].get(key, config.get(key)) for key in others}
    return record["world"], record["arm"], json.dumps(axes, sort_keys=True), f"{record['seed']:09d}"


def name_of(record: Record) -> str:
    return f"{record['arm']} seed {record['seed']} on {record['world']}"


def studies_in(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob(f"*/{RECORDS}"))


def redraw(folder: Path, target: Path, parquet: bool = False) -> list[Path]:
    """Write table.md, table.csv, the figure and perhaps table.parquet of the records in `folder` to `target`."""
    layout, frame = read_layout(folder), framed(list(read_all(folder)))
    rows = table(frame, layout)
    target.mkdir(parents=True, exist_ok=True)
    (target / "table.md").write_text(markdown(rows, layout) + "\n")
    rows.to_csv(target / "table.csv", index=False, float_format="%.6g")
    if parquet:
        rows.to_parquet(target / "table.parquet")
    kinds = ("md", "csv", "parquet") if parquet else ("md", "csv")
    drawn = draw(frame, layout, target / "figure")
    return [*(target / f"table.{kind}" for kind in kinds), *drawn]
