"""RESULTS.md, a section a study, and the table of the README: written from the records in results/."""

import re
from pathlib import Path
from typing import Any

import pandas

from memlayers.studies.frame import framed, read_all, texts
from memlayers.studies.frontier import curves, family, has_main_size, quoted, seeds_at
from memlayers.studies.layout import read_layout
from memlayers.studies.results import studies_in
from memlayers.studies.summary import EXPOSURES, main_runs
from memlayers.studies.table import as_markdown, estimate, interval, markdown, pivot, shown, table, verdict

HEAD = "# Results\n\nWritten by `python scripts/report.py` from the records in `results/`; not to be edited.\n"
MARKERS = ("<!-- results -->", "<!-- /results -->")


def render(results: Path, others: tuple[str, ...] = ()) -> str:
    """RESULTS.md: what every study came to, a section for each, and other sections."""
    studies = studies_in(results)
    return "\n\n".join([HEAD.rstrip(), overview(studies), *map(section, studies), *others]) + "\n"


def overview(studies: list[Path]) -> str:
    """A row a study: its worlds, how many runs it has, and its verdict."""
    rows = []
    for folder in studies:
        found, layout = list(read_all(folder)), read_layout(folder)
        worlds = ", ".join(sorted({record["world"] for record in found}))
        link = f"[{folder.name}](#{folder.name})"
        rows.append(
            {
                "study": link,
                "worlds": worlds,
                "runs": len(found),
                "verdict": layout["verdict"].replace("|", "\\|") or "-",
            }
        )
    return as_markdown(pandas.DataFrame(rows))


def section(folder: Path) -> str:
    """Question, verdict, commands, table and figure of a study."""
    layout = read_layout(folder)
    frame = framed(list(read_all(folder)))
    rows = table(frame, layout)
    commands = "\n".join(f"    {command}" for command in layout["commands"])
    literature = layout["literature"] and f"In the literature: {layout['literature'].strip()}"
    written = layout["verdict"] and f"**{layout['verdict']}**"
    numbers = numbers_of(frame, rows, layout)
    parts = [f"## {folder.name}", layout["question"].strip(), written, numbers, literature, commands]
    if layout["frontier"]:
        parts += [as_markdown(one) for one in frontier_tables(frame, rows, layout)]
        parts += [f"{title}:\n\n{as_markdown(one)}" for title, one in by_relation(frame, layout).items()]
    else:
        parts.append(markdown(rows, layout))
    parts.append(f"![{folder.name}](results/{folder.name}/figure.png)")
    return "\n\n".join(part for part in parts if part)


def numbers_of(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """A sentence a world: the multiples of frontiers, or the best row of a study whose verdict is not written yet."""
    if layout["frontier"]:
        return frontier_verdict(frame, layout)
    return "" if layout["verdict"] else verdict(rows, layout)


def frontier_verdict(frame: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """A sentence a world: how many times the reference's training FLOPs each arm stands for at recall 0.5."""
    reference = layout["reference"]["arm"]
    sentences = []
    for world, own in frame.groupby("world"):
        times = curves(own, "training_flops", reference, layout["y"])
        multiples = {arm: text for arm in times if (text := quoted(times[arm])) != "-"}
        if multiples:
            counts = [seeds_at(times[arm]) or 0 for arm in multiples]
            seeds = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
            by_arm = ", ".join(f"{text} for {arm}" for arm, text in multiples.items())
            sentences.append(
                f"On {world}, for a recall of 0.5 {reference} needs this many times the training FLOPs of another arm "
                f"(95% interval over {seeds} paired seeds): {by_arm}."
            )
    return " ".join(sentences)


def frontier_tables(frame: pandas.DataFrame, rows: pandas.DataFrame, layout: dict[str, Any]) -> list[pandas.DataFrame]:
    """The recall of every configuration over exposures, and all read-outs at those at which arms are compared."""
    main = rows[rows[layout["columns"]] == str(EXPOSURES)]
    if "num_keys" in rows:  # several sizes of tables
        sizes = frame[has_main_size(frame)].groupby("world")["config.num_keys"].first().pipe(texts)
        main = main[main["num_keys"] == main["world"].map(sizes)]
    return [pivot(rows, layout["columns"], layout["y"]), shown(main, layout)]


def by_relation(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, pandas.DataFrame]:
    """Recall of each relation by each arm, at the exposures at which arms are compared: title -> table, one a world."""
    tables = {}
    for world, own in frame.groupby("world"):
        rows = {}
        alike = own[own["config.training.exposures"] == EXPOSURES]
        for arm, runs in main_runs(alike, layout["reference"]["arm"], layout["y"]).items():
            means = runs[[name for name in runs if name.startswith("recall.by_relation.")]].mean().dropna()
            rows[arm] = {name.rpartition(".")[2]: f"{value:.3f}" for name, value in means.items()}
        asked = ", asked in words of training" if own["held_out"].notna().any() else ""
        title = f"Recall by relation on {world}{asked}, each fact shown {EXPOSURES} times"
        tables[title] = pandas.DataFrame(rows).T.rename_axis("arm").reset_index()
    return tables


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
    n = max(len(runs[arm]) for arm in there)
    row: dict[str, Any] = {"world": ""}
    for arm in there:
        row[f"recall: {arm}"] = mean_of(runs[arm], y) + longer(runs[arm]) + fewer(len(runs[arm]), n)
    for arm in (arm for arm in arms if arm in times):
        row[f"{reference} FLOPs / {arm} FLOPs"] = quoted(times[arm]) + fewer(seeds_at(times[arm]), n)
    row |= {f"AUROC: {arm}": mean_of(runs[arm], "unknown_auroc") for arm in there if family(arm, reference) == arm}
    return row | {"n": n}


def fewer(seeds: int | None, n: int) -> str:
    """The seeds of a cell, where they are not those of its row."""
    return "" if seeds in (None, n) else f", n = {seeds}"


def longer(runs: pandas.DataFrame) -> str:
    """How often facts were shown, if that is not what arms are compared at."""
    often = runs["config.training.exposures"].iloc[0]
    return "" if often == EXPOSURES else f", {often:g} exposures"


def mean_of(runs: pandas.DataFrame, readout: str) -> str:
    return interval(estimate(readout, runs[readout]), readout)


def filled(text: str, content: str) -> str:
    """The text with the content between its markers. Raises ValueError for a text without them."""
    pattern = re.compile(f"({MARKERS[0]}\n).*?({MARKERS[1]})", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no markers {MARKERS[0]} and {MARKERS[1]}")
    return pattern.sub(lambda found: found[1] + content + "\n" + found[2], text)
