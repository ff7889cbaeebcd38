"""Writes one self-contained HTML page of studies and of a trained model's reads; it needs no network."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from memlayers.studies.figure import looks_of
from memlayers.studies.frame import framed, read_all
from memlayers.studies.layout import read_layout
from memlayers.studies.page.chart import runtime, variable, vega_spec
from memlayers.studies.page.commands import words_of
from memlayers.studies.page.explorer import explored
from memlayers.studies.page.runs import Runs
from memlayers.studies.page.tables import Table, table_of
from memlayers.studies.panels import panels_of
from memlayers.studies.sections import by_relation, frontier_tables, numbers_of
from memlayers.studies.table import INDEX, axes_in, pivot, shown, table
from memlayers.trained import Trained
from memlayers.training.saved_model import load


def write(
    folders: Sequence[Path],
    path: Path,
    others: Sequence[str] = (),
    run: str | None = None,
    layers: tuple[type, ...] = (),
) -> Path:
    """Write the page of the studies in `folders`, of sections in Markdown, and of the model of `run`; returns its path.
    `layers`: settings classes of the user's layers in that model.

    Raises ValueError, in one line, for folders without records, a run without a model, and a path that cannot be
    written, which is checked first. An existing page is replaced only once the new one is complete.
    """
    if not folders:
        raise ValueError("--html: no records of a study; accepted: a folder with some, such as results/frontier")
    if path.suffix != ".html":
        raise ValueError(f"--out={path}: not the name of a page; accepted: FILE.html")
    scratch = path.with_suffix(".html.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch()
    except OSError as error:
        raise ValueError(f"--out={path}: cannot be written ({error.strerror}); accepted: a writable folder") from None
    try:
        scratch.write_text(rendered(folders, others, run, layers))
        return scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def rendered(
    folders: Sequence[Path], others: Sequence[str] = (), run: str | None = None, layers: tuple[type, ...] = ()
) -> str:
    vega = runtime()  # first, as it raises if the package is missing
    model = None if run is None else explorer_of(run, layers)
    studies = [study_of(folder) for folder in folders]
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    data = {
        "charts": [[panel["spec"] for world in study["worlds"] for panel in world["panels"]] for study in studies],
        "runs": [study["runs"] for study in studies],
        "explorer": model,
    }
    return templates.get_template("template.html").render(
        studies=studies,
        sections=[section_of(markdown) for markdown in others],
        explorer=model,
        style=asset("style.css"),
        data=compact(data),
        scripts=[Markup(vega), asset("page.js"), *([] if model is None else [asset("explorer.js")])],
    )


def asset(name: str) -> Markup:
    """The content of a file beside this one, not escaped."""
    return Markup((Path(__file__).parent / name).read_text())


def explorer_of(run: str, layers: tuple[type, ...]) -> dict[str, Any]:
    return explored(Trained(*load(run, layers)), run)


def study_of(folder: Path) -> dict[str, Any]:
    """The data of a study for the page. Raises ValueError for a folder without records."""
    records, layout = list(read_all(folder)), read_layout(folder)
    if not records:
        raise ValueError(f"{folder}: no record of a run; accepted: the folder of a study, such as results/frontier")
    frame = framed(records)
    ok, rows = frame[frame["status"] == "ok"], table(frame, layout)
    runs = Runs(ok, records, [words for command in layout["commands"] if (words := words_of(command)) is not None])
    panels_by_world = panels_of(frame, layout)
    looks = looks_of(panels_by_world)
    for point in (point for panels in panels_by_world.values() for panel in panels for point in panel["points"]):
        point["run"] = runs.add(frame.loc[point.pop("runs")])
    worlds = [
        {"name": world, "panels": [{"title": item["title"], "spec": vega_spec(plain(item), looks)} for item in panels]}
        for world, panels in panels_by_world.items()
    ]
    failed = frame[frame["status"] != "ok"]
    return {
        "name": folder.resolve().name,
        "id": re.sub(r"\W+", "-", folder.resolve().name),
        "question": layout["question"].strip(),
        "verdict": [
            text  # what is written, and a sentence a world
            for text in (layout["verdict"], *re.split(r"(?<=\.) (?=On )", numbers_of(frame, rows, layout)))
            if text
        ],
        "commands": layout["commands"],
        "counts": {"runs": len(ok), "failed": len(failed), "worlds": frame["world"].nunique()},
        "failed": [f"{item.arm} seed {item.seed} on {item.world}: {item.error}" for item in failed.itertuples()],
        "arms": {name: variable(look.colour) for name, look in looks.items()},
        "worlds": worlds,
        "runs": runs.descriptions,
        "tables": tables_of(frame, rows, layout),
    }


def tables_of(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> list[Table]:
    """The tables of RESULTS.md, the most informative first."""
    over = f"{layout['y'].replace('_', ' ')} over {layout['columns']}"
    if layout["frontier"]:
        wide, main = frontier_tables(frame, rows, layout)
        named = {"All read-outs": main} | by_relation(frame, layout)
        named |= {f"Every configuration: {over}": wide}
    else:
        named = {"All configurations": shown(rows, layout)}
        named |= (
            {f"Side by side: {over}": pivot(rows, layout["columns"], layout["y"])} if layout["columns"] in rows else {}
        )
    axes = [*INDEX, *axes_in(rows)]
    return [table_of(*part) for caption, texts in named.items() for part in by_world(caption, texts, axes)]


def by_world(caption: str, texts: pandas.DataFrame, axes: list[str]) -> list[tuple[str, pandas.DataFrame]]:
    """Split a table by world, as (caption, rows). An axis with one value moves to the caption."""
    worlds = texts.groupby("world", sort=False) if "world" in texts else [("", texts)]
    tables = []
    for world, part in worlds:
        fixed = [name for name in axes if name in part and name != "arm" and part[name].nunique() == 1]
        values = [f"{name} = {part[name].iloc[0]}" for name in fixed if name != "world"]
        tables.append((", ".join([caption, *([str(world)] if world else []), *values]), part.drop(columns=fixed)))
    return tables


def section_of(markdown: str) -> dict[str, Any]:
    """The data of a section of RESULTS.md that is no study: title, paragraphs, commands and tables, without figures."""
    section: dict[str, Any] = {"name": "", "paragraphs": [], "commands": [], "tables": []}
    for block in markdown.split("\n\n"):
        if block.startswith("## "):
            section["name"] = block.removeprefix("## ")
        elif block.startswith("|"):
            head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            caption = f"{section['name']}, table {len(section['tables']) + 1}"
            section["tables"].append(table_of(caption, pandas.DataFrame(body, columns=head)))
        elif block.startswith("    "):
            section["commands"] += [line.strip() for line in block.splitlines()]
        elif not block.startswith("!["):
            section["paragraphs"].append(block.replace("`", ""))
    return section


def plain(value: Any) -> Any:
    """A value for JSON: NumPy numbers as Python's, floats to five digits, None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | numpy.floating):
        return float(f"{value:.5g}") if numpy.isfinite(value) else None
    return value.item() if isinstance(value, numpy.generic) else value


def compact(data: Any) -> Markup:
    """JSON for a script element, with every < escaped."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))
