"""The runs behind the points of figures: what each configuration was, came to, and is run by."""

from collections.abc import Sequence
from typing import Any

import pandas

from memlayers.studies.frame import label, texts
from memlayers.studies.labels import spelt
from memlayers.studies.page.commands import Words, command_of
from memlayers.studies.table import estimate, interval
from memlayers.training.record import Record

SHOWN = ("recall", "held_out", "unknown_auroc", "training_flops", "params", "seconds")


class Runs:
    """The configurations behind points, in order of use, with their descriptions."""

    def __init__(self, frame: pandas.DataFrame, records: Sequence[Record], commands: Sequence[Words]):
        self.frame, self.records, self.commands = frame, records, commands
        swept = [name for name in frame if name.startswith("axes.")]
        self.axes = sorted(name for name in swept if label(name) not in ("arm", "world", "seed"))
        self.descriptions: list[dict[str, Any]] = []

    def add(self, rows: pandas.DataFrame) -> int:
        """Add a configuration, given by the rows of its runs; returns its index."""
        first = rows.iloc[0]
        axes = {label(name): texts(rows[name]).iloc[0] for name in self.axes}
        settings = {"world": str(first["world"])} | {key: value for key, value in axes.items() if value != "-"}
        readouts = {name: interval(estimate(name, rows[name]), name) for name in SHOWN if rows[name].notna().any()}
        runs = sorted((self.records[index] for index in rows.index), key=lambda run: run["seed"])
        self.descriptions.append(
            {
                "title": str(first["arm"]),
                "settings": settings | {"seed": ", ".join(str(run["seed"]) for run in runs)},
                "readouts": {spelt(name): value for name, value in readouts.items()},
                "n": len(rows),
                "command": command_of(runs, self.commands),
            }
        )
        return len(self.descriptions) - 1
