"""One HTML file of all studies, and of what a trained model reads: no network, and all that it needs within."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from memlayers.studies.frame import framed, read_all
from memlayers.studies.layout import read_layout
from memlayers.studies.page.chart import laid_out, runtime, variable
from memlayers.studies.page.commands import words_of
from memlayers.studies.page.explorer import explored
from memlayers.studies.page.panels import Runs, arms_of, panels_of, panels_of_frontiers
from memlayers.studies.page.tables import Table, table_of
from memlayers.studies.sections import by_relation, frontier_tables, verdict_of
from memlayers.studies.table import pivot, shown, table
from memlayers.trained import Trained
from memlayers.training.saved_model import load


def write(
    folders: Sequence[Path],
    path: Path,
    others: Sequence[str] = (),
    run: str | None = None,
    layers: tuple[type, ...] = (),
) -> Path:
    """The page of the studies in some folders, of sections in Markdown, and of the model of a run; returns its path.
    `layers`: settings of the user's own, of that model.

    Raises ValueError, in one line, for folders without records, a run without a model, and a path that cannot be
    written, which is tried before the model is asked. A page that was there stays, until the new one is whole.
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
    vega = runtime()  # first, as it says what is not installed
    model = None if run is None else explorer_of(run, layers)
    studies = [study_of(folder) for folder in folders]
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    data = {
        "charts": [[panel["spec"] for world in one["worlds"] for panel in world["panels"]] for one in studies],
        "runs": [one["runs"] for one in studies],
        "explorer": model,
    }
    return templates.get_template("template.html").render(
        studies=studies,
        sections=[section_of(one) for one in others],
        explorer=model,
        style=asset("style.css"),
        data=compact(data),
        scripts=[Markup(vega), asset("page.js"), *([] if model is None else [asset("explorer.js")])],
    )


def asset(name: str) -> Markup:
    """A file beside this one, which goes into the page as it is."""
    return Markup((Path(__file__).parent / name).read_text())


def explorer_of(run: str, layers: tuple[type, ...]) -> dict[str, Any]:
    return explored(Trained(*load(run, layers)), run)


def study_of(folder: Path) -> dict[str, Any]:
    """All that the page says about a study. Raises ValueError for a folder without records."""
    found, layout = list(read_all(folder)), read_layout(folder)
    if not found:
        raise ValueError(f"{folder}: no record of a run; accepted: the folder of a study, such as results/frontier")
    frame = framed(found)
    ok, rows = frame[frame["status"] == "ok"], table(frame, layout)
    runs = Runs(ok, found, [words for command in layout["commands"] if (words := words_of(command)) is not None])
    made = {} if ok.empty else (panels_of_frontiers if layout["frontier"] else panels_of)(ok, layout, runs)
    arms = arms_of(made, layout)
    worlds = [
        {"name": world, "panels": [{"title": one["title"], "spec": laid_out(plain(one), arms)} for one in panels]}
        for world, panels in made.items()
    ]
    failed = frame[frame["status"] != "ok"]
    return {
        "name": folder.resolve().name,
        "id": re.sub(r"\W+", "-", folder.resolve().name),
        "question": layout["question"].strip(),
        "verdict": [
            *filter(None, [layout["verdict"].strip()]),
            *re.split(r"(?<=\.) (?=On )", verdict_of(frame, rows, layout)),  # a sentence a world
        ],
        "commands": layout["commands"],
        "counts": {"runs": len(ok), "failed": len(failed), "worlds": frame["world"].nunique()},
        "failed": [f"{one.arm} seed {one.seed} on {one.world}: {one.error}" for one in failed.itertuples()],
        "arms": {name: variable(colour) for name, colour in arms.items()},
        "worlds": worlds,
        "runs": runs.told,
        "tables": tables_of(frame, rows, layout),
    }


def tables_of(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> list[Table]:
    """The tables of RESULTS.md, those first that tell most."""
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
    axes = list(rows.columns[: list(rows.columns).index("n")])
    return [table_of(*one) for caption, texts in named.items() for one in by_world(caption, texts, axes)]


def by_world(caption: str, texts: pandas.DataFrame, axes: list[str]) -> list[tuple[str, pandas.DataFrame]]:
    """A table for each world. An axis with one value moves into its caption, so that the first columns tell most."""
    worlds = texts.groupby("world", sort=False) if "world" in texts else [("", texts)]
    found = []
    for world, own in worlds:
        fixed = [name for name in axes if name in own and name != "arm" and own[name].nunique() == 1]
        values = [f"{name} = {own[name].iloc[0]}" for name in fixed if name != "world"]
        found.append((", ".join([caption, *([str(world)] if world else []), *values]), own.drop(columns=fixed)))
    return found


def section_of(markdown: str) -> dict[str, Any]:
    """A section of RESULTS.md that is no study: a title, paragraphs, commands and tables; its figure stays there."""
    made: dict[str, Any] = {"name": "", "paragraphs": [], "commands": [], "tables": []}
    for block in markdown.split("\n\n"):
        if block.startswith("## "):
            made["name"] = block.removeprefix("## ")
        elif block.startswith("|"):
            head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
            caption = f"{made['name']}, table {len(made['tables']) + 1}"
            made["tables"].append(table_of(caption, pandas.DataFrame(body, columns=head)))
        elif block.startswith("    "):
            made["commands"] += [line.strip() for line in block.splitlines()]
        elif not block.startswith("!["):
            made["paragraphs"].append(block.replace("`", ""))
    return made


def plain(value: Any) -> Any:
    """For JSON: numbers of numpy as Python's, to five digits, and None for what is not a number."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | numpy.floating):
        return float(f"{value:.5g}") if numpy.isfinite(value) else None
    return value.item() if isinstance(value, numpy.generic) else value


def compact(data: Any) -> Markup:
    """JSON that may stand in a script element: it holds no < at all."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))
