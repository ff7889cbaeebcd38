"""results/: the records of a study in one file, its table and figure, and RESULTS.md over all of them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas
from omegaconf import OmegaConf

from memlayers.config.digest import flatten
from memlayers.studies.figure import draw
from memlayers.studies.frame import RECORDS, framed, read_all
from memlayers.studies.frontier import common_seeds, curves, family, quoted
from memlayers.studies.frontier_figure import draw_frontiers
from memlayers.studies.layout import FILE, read_layout
from memlayers.studies.summary import SHOWINGS, main_runs, main_sizes
from memlayers.studies.table import as_markdown, estimate, interval, markdown, pivot, shown, table, verdict
from memlayers.training.record import Record

HEAD = "# Results\n\nWritten by `python scripts/report.py` from the records in `results/`; not to be edited.\n"
MARKERS = ("<!-- results -->", "<!-- /results -->")


def commit(folder: Path, results: Path) -> Path:
    """Take the records of a study, results/local/STUDY, into results/STUDY. Returns that folder.

    Raises ValueError, and changes nothing, for records of code that was not committed, of several studies, and for
    other digests than the ones that are there.
    """
    fresh = list(read_all(folder))
    studies = sorted({record["study"] for record in fresh})
    if len(studies) != 1:
        raise ValueError(f"{folder}: records of {', '.join(studies) or 'no study'}; accepted: those of one study")
    for record in fresh:
        if record["code"]["dirty"] or record["code"]["commit"] is None:
            raise ValueError(
                f"{folder}: {name_of(record)} was run with uncommitted code (diff {record['code']['diff']}); accepted: "
                "records of committed code: commit it, delete the record and run again"
            )
    target = results / studies[0]
    there = list(read_all(target)) if target.is_dir() else []
    layout = read_layout(folder)
    rows = {axis for axis in layout["rows"] if axis != "arm"}  # which a command may have set to one value
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
    layout |= {"axes": axes_of_all(kept[key] for key in sorted(kept))}
    commands = [*read_layout(target)["commands"], *layout["commands"]]
    target.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(kept[key], sort_keys=True, allow_nan=False) for key in sorted(kept)]
    (target / RECORDS).write_text("\n".join(lines) + "\n")
    OmegaConf.save(layout | {"commands": list(dict.fromkeys(commands))}, target / FILE)
    return target


def axes_of_all(found: Iterable[Record]) -> dict[str, list[Any]]:
    """Each axis with its values, in the order of the records."""
    axes: dict[str, list[Any]] = {}
    for record in found:
        for key, value in (record["axes"] | {"world": record["world"]}).items():
            axes.setdefault(key, [])
            axes[key] += [value] if value not in axes[key] else []
    return axes


def place(record: Record, swept: list[str]) -> tuple[str, ...]:
    """What a study has one record of, in the order of its file: its value of all that any command of it swept."""
    config = flatten(record.get("config", {}))
    axes = {key: record["axes"].get(key, config.get(key)) for key in swept if key != "seed"}
    return record["world"], record["arm"], json.dumps(axes, sort_keys=True), f"{record['seed']:09d}"


def name_of(record: Record) -> str:
    return f"{record['arm']} seed {record['seed']} on {record['world']}"


def section(folder: Path) -> str:
    """Question, commands, table, figure and verdict of a study."""
    layout = read_layout(folder)
    frame = framed(list(read_all(folder)))
    rows = table(frame, layout)
    commands = "\n".join(f"    {command}" for command in layout["commands"])
    literature = layout["literature"] and f"In the literature: {layout['literature'].strip()}"
    parts = [f"## {folder.name}", layout["question"].strip(), verdict_of(frame, rows, layout), literature, commands]
    if layout["frontier"]:
        parts += [as_markdown(one) for one in frontier_tables(frame, rows, layout)]
        parts += [f"{title}:\n\n{as_markdown(one)}" for title, one in by_relation(frame, layout).items()]
    else:
        parts.append(markdown(rows, layout))
    parts.append(f"![{folder.name}](results/{folder.name}/figure.png)")
    return "\n\n".join(part for part in parts if part)


def verdict_of(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """What came out, in a sentence a world."""
    return frontier_verdict(frame, layout) if layout["frontier"] else verdict(rows, layout)


def frontier_verdict(frame: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """A sentence a world: how many times the reference's training FLOPs each arm stands for at recall 0.5."""
    reference = layout["reference"]["arm"]
    sentences = []
    for world, own in frame.groupby("world"):
        times = curves(own, "training_flops", reference, layout["y"])
        said = [f"{quoted(times[arm])} for {arm}" for arm in times if quoted(times[arm]) != "-"]
        if said:
            sentences.append(
                f"On {world}, for a recall of 0.5 {reference} needs this many times the training FLOPs of another arm "
                f"(95% interval over {len(common_seeds(own))} paired seeds): {', '.join(said)}."
            )
    return " ".join(sentences)


def frontier_tables(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> list[pandas.DataFrame]:
    """The recall of every configuration over showings, and all read-outs at the showings at which arms are compared."""
    main = rows[rows[layout["columns"]] == str(SHOWINGS)]
    if "num_keys" in rows:  # several sizes of tables
        main = main[main["num_keys"].isin(main_sizes(frame))]
    return [pivot(rows, layout["columns"], layout["y"]), shown(main, layout)]


def by_relation(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, pandas.DataFrame]:
    """Recall of each relation by each arm, at the showings at which arms are compared: title -> table, one a world."""
    tables = {}
    for world, own in frame.groupby("world"):
        rows = {}
        for arm, runs in main_runs(own, layout["reference"]["arm"], layout["y"]).items():
            means = runs[[name for name in runs if name.startswith("recall.by_relation.")]].mean().dropna()
            rows[arm] = {name.rpartition(".")[2]: f"{value:.3f}" for name, value in means.items()}
        title = f"Recall by relation on {world}, each fact shown {SHOWINGS} times"
        tables[title] = pandas.DataFrame(rows).T.rename_axis("arm").reset_index()
    return tables


def studies_in(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob(f"*/{RECORDS}"))


def render(results: Path, others: tuple[str, ...] = ()) -> str:
    """RESULTS.md: a section a study, then other sections."""
    return "\n\n".join([HEAD.rstrip(), *map(section, studies_in(results)), *others]) + "\n"


def redraw(folder: Path, target: Path, parquet: bool = False) -> list[Path]:
    """table.md, table.csv and figure of the records below a folder, and table.parquet, into another."""
    layout, frame = read_layout(folder), framed(list(read_all(folder)))
    rows = table(frame, layout)
    target.mkdir(parents=True, exist_ok=True)
    (target / "table.md").write_text(markdown(rows, layout) + "\n")
    rows.to_csv(target / "table.csv", index=False, float_format="%.6g")
    if parquet:
        rows.to_parquet(target / "table.parquet")
    kinds = ("md", "csv", "parquet") if parquet else ("md", "csv")
    drawn = (draw_frontiers if layout["frontier"] else draw)(frame, layout, target / "figure")
    return [*(target / f"table.{kind}" for kind in kinds), *drawn]


def headline(folders: list[Path], arms: tuple[str, ...]) -> str:
    """The README's table: a row a world of these studies with the recall of these arms, how many times the reference's
    FLOPs they stand for at recall 0.5, and AUROC against unknown subjects.
    """
    rows = []
    for folder in folders:
        layout, frame = read_layout(folder), framed(list(read_all(folder)))
        rows += [headline_of(own, arms, layout) | {"world": world} for world, own in frame.groupby("world")]
    return as_markdown(pandas.DataFrame(rows).fillna("-"))


def headline_of(frame: pandas.DataFrame, arms: tuple[str, ...], layout: dict[str, Any]) -> dict[str, Any]:
    reference, y = layout["reference"]["arm"], layout["y"]
    runs, times = main_runs(frame, reference, y), curves(frame, "training_flops", reference, y)
    there = [arm for arm in arms if arm in runs]
    row: dict[str, Any] = {"world": ""} | {arm: mean_of(runs[arm], y) for arm in there}
    row |= {f"{arm}: times the FLOPs of {reference}": quoted(times[arm]) for arm in arms if arm in times}
    row |= {f"{arm}: AUROC": mean_of(runs[arm], "unknown_auroc") for arm in there if family(arm, reference) == arm}
    return row | {"n": min(len(runs[arm]) for arm in there)}


def mean_of(runs: pandas.DataFrame, readout: str) -> str:
    return interval(estimate(readout, runs[readout]), readout)


def filled(text: str, content: str) -> str:
    """The text with the content between its markers. Raises ValueError for a text without them."""
    pattern = re.compile(f"({MARKERS[0]}\n).*?({MARKERS[1]})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no markers {MARKERS[0]} and {MARKERS[1]}")
    return pattern.sub(lambda found: found[1] + content + "\n" + found[2], text)
