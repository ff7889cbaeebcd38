"""Results that a script of its own measures, a file of JSON with `runs`: for RESULTS.md and results/summary.json."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from memlayers.studies.summary import spread
from memlayers.studies.table import as_markdown, estimate, interval

MEGABYTES = {"bytes", "bytes_up", "bytes_down"}  # read-outs that are shown in MB


@dataclass(frozen=True)
class Scripted:
    """A study whose runs are no plain training runs. Runs are dictionaries of axes, seed and read-outs."""

    name: str
    script: str  # scripts/SCRIPT.py, which writes results/SCRIPT.json
    axes: list[str]
    shares: list[str]  # read-outs from 0 to 1
    costs: list[str]  # other read-outs
    question: str
    literature: str
    verdict: Callable[[pandas.DataFrame], str]
    command: Callable[[dict[str, Any]], str]
    world: str = "biographies"

    def load(self, path: Path) -> dict[str, Any] | None:
        """The content of the file, or None without one. Raises ValueError for another format."""
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text())
            self.frame(content)
            self.command(content)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}: not written by scripts/{self.script}.py ({problem})") from None
        return dict(content)

    def frame(self, content: dict[str, Any]) -> pandas.DataFrame:
        """The runs as a DataFrame, with floats in all read-outs."""
        runs = pandas.DataFrame(content["runs"])
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
        """A row for each combination of axes, in the order of runs: n, and READOUT, READOUT_low, READOUT_high."""
        rows = []
        for key, group in runs.groupby(self.axes, sort=False):
            row = dict(zip(self.axes, key, strict=True)) | {"n": len(group)}
            for name in self.readouts:
                row |= self.estimates(name, group[name])
            rows.append(row)
        return rows

    def section(self, content: dict[str, Any]) -> str:
        """The section of RESULTS.md: question, verdict, command and table."""
        runs = self.frame(content)
        shown = []
        for row in self.rows(runs):
            cells = {axis: row[axis] for axis in self.axes}
            for name in self.readouts:
                unit = 1e6 if name in MEGABYTES else 1
                cells[name] = interval({end: row[end] / unit for end in (name, f"{name}_low", f"{name}_high")}, name)
            shown.append(cells | {"n": row["n"]})
        literature = f"In the literature: {self.literature}"
        verdict = f"**{found}**" if (found := self.verdict(runs)) else ""
        table = as_markdown(pandas.DataFrame(shown))
        return "\n\n".join(
            [f"## {self.name}", self.question, verdict, literature, f"    {self.command(content)}", table]
        )

    def overview(self, content: dict[str, Any]) -> dict[str, Any]:
        """The row of this study in RESULTS.md's first table."""
        link = f"[{self.name}](#{self.name})"
        runs = self.frame(content)
        return {"study": link, "worlds": self.world, "runs": len(runs), "verdict": self.verdict(runs) or "-"}

    def summary(self, content: dict[str, Any]) -> dict[str, Any]:
        """The part of results/summary.json: of each row its axes, n, and {mean, low, high} of what was measured."""
        rows = []
        for row in self.rows(self.frame(content)):
            there = [name for name in self.readouts if pandas.notna(row[name])]
            axes = {axis: row[axis] for axis in self.axes}
            rows.append(axes | {"n": row["n"]} | {name: spread(row, name) for name in there})
        return {self.name: {self.world: {"rows": rows}}}
