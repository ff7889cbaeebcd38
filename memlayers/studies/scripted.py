"""Results that a script of its own measures, a file of JSON a world: for RESULTS.md and summary.json."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from matplotlib.figure import Figure

from memlayers.studies.figure import against, colours_of, saved
from memlayers.studies.summary import spread
from memlayers.studies.table import as_markdown, estimate, interval, naming

MEGABYTES = {"bytes", "bytes_up", "bytes_down"}  # read-outs that are shown in MB
Content = dict[str, Any]  # of a file


@dataclass(frozen=True)
class Scripted:
    """A study whose runs are no plain training runs. Runs are dictionaries of axes, seed and read-outs."""

    name: str
    script: str  # scripts/SCRIPT.py, which writes results/NAME/WORLD.json
    axes: list[str]
    shares: list[str]  # read-outs from 0 to 1
    costs: list[str]  # other read-outs
    question: str
    literature: str
    verdict: Callable[[pandas.DataFrame], str]
    command: Callable[[Content], str]
    x: str  # the axis of the figure
    y: str  # and its read-out, a share

    def path(self, results: Path, world: str) -> Path:
        return results / self.name / f"{world}.json"

    def load(self, results: Path) -> list[Content]:
        """What was measured, a world each. Raises ValueError for a file of another format."""
        contents = [self.read(path) for path in sorted((results / self.name).glob("*.json"))]
        return [content for content in contents if content["runs"]]

    def read(self, path: Path) -> Content:
        """The content of a file. Raises ValueError for another format."""
        try:
            content = dict(json.loads(path.read_text()))
            dict(content["settings"], world=content["world"])  # raises for another shape
            if content["runs"]:  # none while rates are searched
                self.frame([content])
                self.command(content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: not written by scripts/{self.script}.py ({problem})") from None
        return content

    def resumed(self, path: Path, fresh: Content) -> Content:
        """The content of a file to go on with, or a fresh one. Raises ValueError for other settings and a folder."""
        if path.is_dir():
            raise ValueError(f"--out={path} is a folder; accepted: a file")
        if not path.is_file():
            return fresh
        found = self.read(path)
        there, own = (one["settings"] | {"world": one["world"]} for one in (found, fresh))
        if other := [name for name in there | own if there.get(name) != own.get(name)]:
            words = ", ".join(f"{name}={there.get(name)}" for name in other)
            raise ValueError(f"{path} has runs with {words}; accepted: those of this command, or another --out")
        if missing := fresh.keys() - found.keys():
            raise ValueError(
                f"{path}: not written by scripts/{self.script}.py (it has no {', '.join(sorted(missing))})"
            )
        return found

    def frame(self, contents: Sequence[Content]) -> pandas.DataFrame:
        """The runs of all worlds as a DataFrame, with floats in all read-outs."""
        runs = pandas.DataFrame([{"world": one["world"]} | run for one in contents for run in one["runs"]])
        missing = [name for name in (*self.axes, "seed", *self.readouts) if name not in runs]
        if missing:
            raise ValueError(f"runs have no {', '.join(missing)}")
        return runs.astype(dict.fromkeys(self.readouts, float))

    @property
    def readouts(self) -> list[str]:
        return [*self.shares, *self.costs]

    def estimates(self, name: str, values: pandas.Series) -> dict[str, float]:
        """Mean and 95% t interval of a read-out; that of a share ends at 0 and 1."""
        return estimate(name, values, is_share=name in self.shares)

    def rows(self, runs: pandas.DataFrame) -> list[dict[str, Any]]:
        """A row for each world and combination of axes, in the order of runs: n, READOUT, READOUT_low, READOUT_high."""
        rows, axes = [], ["world", *self.axes]
        for key, group in runs.groupby(axes, sort=False):
            row = dict(zip(axes, key, strict=True)) | {"n": len(group)}
            for name in self.readouts:
                row |= self.estimates(name, group[name])
            rows.append(row)
        return rows

    def verdicts(self, runs: pandas.DataFrame) -> str:
        """The verdict of each world."""
        found = {world: self.verdict(own) for world, own in runs.groupby("world")}
        return " ".join(f"On {world}: {text}" for world, text in found.items() if text)

    def section(self, contents: Sequence[Content]) -> str:
        """The section of RESULTS.md: question, verdict, commands, table and figure."""
        runs = self.frame(contents)
        shown = []
        for row in self.rows(runs):
            cells = {axis: row[axis] for axis in ("world", *self.axes)}
            for name in self.readouts:
                unit = 1e6 if name in MEGABYTES else 1
                cells[name] = interval({end: row[end] / unit for end in (name, f"{name}_low", f"{name}_high")}, name)
            shown.append(cells | {"n": row["n"]})
        literature = f"In the literature: {self.literature}"
        verdict = f"**{found}**" if (found := self.verdicts(runs)) else ""
        commands = "\n".join(f"    {self.command(content)}" for content in contents)
        table, figure = as_markdown(pandas.DataFrame(shown)), f"![{self.name}](results/{self.name}/figure.png)"
        return "\n\n".join([f"## {self.name}", self.question, verdict, literature, commands, table, figure])

    def overview(self, contents: Sequence[Content]) -> dict[str, Any]:
        """The row of this study in RESULTS.md's first table."""
        link, runs = f"[{self.name}](#{self.name})", self.frame(contents)
        worlds = ", ".join(sorted(runs["world"].unique()))
        return {"study": link, "worlds": worlds, "runs": len(runs), "verdict": self.verdicts(runs) or "-"}

    def summary(self, contents: Sequence[Content]) -> dict[str, Any]:
        """The part of results/summary.json: of each row its axes, n, and {mean, low, high} of what was measured."""
        found: dict[str, Any] = {}
        for row in self.rows(self.frame(contents)):
            there = [name for name in self.readouts if pandas.notna(row[name])]
            axes = {axis: row[axis] for axis in self.axes} | {"n": row["n"]}
            rows = found.setdefault(row["world"], {"rows": []})["rows"]
            rows.append(axes | {name: spread(row, name) for name in there})
        return {self.name: found}

    def draw(self, contents: Sequence[Content], path: Path) -> list[Path]:
        """path.png and path.svg: the read-out `y` against the axis `x`, a line for each combination of other axes."""
        rows, others = pandas.DataFrame(self.rows(self.frame(contents))), [axis for axis in self.axes if axis != self.x]
        lines = [naming(row, others) if others else self.y for _, row in rows.iterrows()]
        rows = rows.assign(line=lines, label=lines)
        colours = colours_of(list(dict.fromkeys(lines)), {"reference": {}})
        worlds = list(dict.fromkeys(rows["world"]))

        def panels() -> Figure:
            figure = Figure(figsize=(7.5, 3.1 * len(worlds)))
            for world, panel in zip(worlds, figure.subplots(len(worlds), squeeze=False).flat, strict=True):
                own = rows[rows["world"] == world]
                against(panel, own, self.x, self.y, colours)
                panel.set_title(f"{world} (n = {own['n'].max()})", loc="left", fontsize=9)
                panel.set_ylim(min(-0.02, own[[self.y, f"{self.y}_low"]].min(axis=None)) - 0.02, 1.03)
            return figure

        return saved(panels, path)
