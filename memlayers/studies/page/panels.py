"""The figures of a study as data: panels of lines, bands and points, and the runs behind each point.

A panel     {"title", "x", "y": {"title", "scale", "domain"}, "rules", "lines", "bands", "points"}
its marks   rows with "arm", the name of the line that they belong to, and their places; a point names its "run"
a run       a configuration of a study on some seeds: {"title", "settings", "readouts", "n", "command"}
"""

from collections.abc import Sequence
from typing import Any

import numpy
import pandas

from memlayers.studies.figure import colours_of, lines_of
from memlayers.studies.frame import READOUTS, label, records_on_the_way, texts
from memlayers.studies.frontier import complete, family, front, multipliers, points_of, seeds_a_point
from memlayers.studies.page.commands import Words, command_of
from memlayers.studies.table import INDEX, estimate, interval, number
from memlayers.training.record import Record

LEVELS = tuple(numpy.round(numpy.arange(0.02, 1.0, 0.02), 2))
SHOWN = ("recall", "held_out", "unknown_auroc", "training_flops", "params", "seconds")
MARKS = ("rules", "lines", "bands", "points", "bounds")
Panel = dict[str, Any]


class Runs:
    """Configurations in the order in which points ask for them, with what is told of each."""

    def __init__(self, frame: pandas.DataFrame, records: Sequence[Record], commands: Sequence[Words]):
        self.frame, self.records, self.commands = frame, records, commands
        swept = [name for name in frame if name.startswith("axes.")]
        self.axes = sorted(name for name in swept if label(name) not in ("arm", "world", "seed"))
        self.told: list[dict[str, Any]] = []

    def add(self, rows: pandas.DataFrame) -> int:
        """Of the rows of one configuration; returns its place."""
        first = rows.iloc[0]
        axes = {label(name): texts(rows[name]).iloc[0] for name in self.axes}
        settings = {"world": str(first["world"])} | {key: value for key, value in axes.items() if value != "-"}
        readouts = {name: interval(estimate(name, rows[name]), name) for name in SHOWN if rows[name].notna().any()}
        own = sorted((self.records[index] for index in rows.index), key=lambda one: one["seed"])
        self.told.append(
            {
                "title": str(first["arm"]),
                "settings": settings | {"seed": ", ".join(str(one["seed"]) for one in own)},
                "readouts": {spelt(name): value for name, value in readouts.items()},
                "n": len(rows),
                "command": command_of(own, self.commands),
            }
        )
        return len(self.told) - 1


def panels_of_frontiers(frame: pandas.DataFrame, layout: dict[str, Any], runs: Runs) -> dict[str, list[Panel]]:
    """Two panels a world, as in the figure of memlayers.studies.frontier_figure."""
    reference, y = str(layout["reference"]["arm"]), layout["y"]
    made = {}
    for world, own in frame.groupby("world", sort=True):
        points, lines, bands, bounds, curves = [], [], [], [], []
        found = points_of(own, "training_flops", reference, y)
        arms = set(own["arm"])
        for arm, configurations in found.items():
            if arm not in arms:
                continue  # of tables of another size: points without a front
            cost, recall = configurations.cost, configurations.mean
            lines += [{"arm": arm, "x": cost[i], "y": recall[i]} for i in front(cost, recall)]
            if arm == reference or reference not in found:
                continue
            for level in multipliers(configurations, found[reference], LEVELS):
                place = {"arm": arm, "x": level["recall"], "y": level["times"]}
                curves.append(place)
                bands.append({"arm": arm, "x": level["recall"], "low": level["low"], "high": level["high"]})
                bounds += [place] if level["at_least"] else []
        for (arm, _), rows in complete(own).groupby(["arm", "digest"], sort=True):
            name = family(str(arm), reference)
            spread = {key.replace(y, "y"): value for key, value in estimate(y, rows[y]).items()}
            points.append(point(name, rows["training_flops"].median(), spread, runs.add(rows)))
        title = spelt(y)
        left = panel(
            f"{title} against training FLOPs, {seeds_a_point(found)} seeds a point", "training FLOPs", "log", title
        )
        left |= {"rules": rules(own), "lines": lines, "points": points}
        said = f"how many times an arm's FLOPs {reference} needs" + (" (triangles: at least)" if bounds else "")
        right = panel(said, title, "linear", f"FLOPs of {reference} / the arm's")
        right["y"]["scale"] = "log"
        right |= {"rules": [{"y": 1, "label": reference}], "lines": curves, "bands": bands, "bounds": bounds}
        made[str(world)] = [left, right]
    return made


def panels_of(frame: pandas.DataFrame, layout: dict[str, Any], runs: Runs) -> dict[str, list[Panel]]:
    """A panel or two a world, as in the figure of memlayers.studies.figure."""
    rows, x, names = lines_of(frame, layout)
    keys = [name for name in rows.columns[: list(rows.columns).index("n")] if name not in INDEX]
    known = {label(name): texts(frame[name]) for name in sorted(frame, reverse=True) if label(name) in keys}
    is_axis, made = x not in READOUTS, {}
    words = is_axis and not rows[x].map(number).any()
    for world, own in rows.groupby("world", sort=False):
        points = []
        for _, row in own.iterrows():
            cell = (frame["world"] == world) & (frame["study"] == row["study"])
            for key in keys:
                cell &= known[key] == row[key]
            place = row[x] if words or not is_axis else number(row[x])
            spread = {end: row[f"{layout['y']}{end}"] for end in ("", "_low", "_high")}
            points.append(point(row["line"], place, {f"y{end}": v for end, v in spread.items()}, runs.add(frame[cell])))
        points = [one for one in points if one["y"] is not None]
        scale = "point" if words else "linear" if is_axis and wide(points) is False else "log"
        first = panel(spelt(f"{layout['y']} against {x}"), spelt(x), scale, spelt(layout["y"]))
        joined = sorted(points, key=lambda one: one["x"]) if is_axis and not words else []
        made[str(world)] = [
            first | {"points": points, "lines": [{k: one[k] for k in ("arm", "x", "y")} for one in joined]}
        ]
        if x == "training_flops":
            made[str(world)].append(on_the_way(frame[frame["world"] == world], names))
    return made


def on_the_way(frame: pandas.DataFrame, names: list[str]) -> Panel:
    means = records_on_the_way(frame, names).groupby(["line", "exposures"], sort=True)["recall"].mean()
    lines = [{"arm": line, "x": x, "y": y} for (line, x), y in means.items()]
    made = panel("recall on the way", "exposures of a fact", "linear", "recall")
    return made | {"rules": rules(frame)[:1], "lines": lines}


def panel(title: str, x: str, scale: str, y: str) -> Panel:
    marks: Panel = {name: [] for name in MARKS}
    return marks | {"title": title, "x": {"title": x, "scale": scale}, "y": {"title": y, "scale": "linear"}}


def spelt(name: str) -> str:
    """A read-out or an axis in words."""
    return name.replace("_", " ").replace("flops", "FLOPs").replace("auroc", "AUROC")


def point(arm: str, x: Any, y: dict[str, float], run: int) -> dict[str, Any]:
    low, high = ((y["y"] if pandas.isna(y[end]) else y[end]) for end in ("y_low", "y_high"))
    return {"arm": arm, "x": x, "y": None if pandas.isna(y["y"]) else y["y"], "low": low, "high": high, "run": run}


def rules(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    return [{"y": frame["recall.floor"].iloc[0], "label": "commonest object"}, {"y": 1, "label": "lookup in the facts"}]


def wide(points: list[dict[str, Any]]) -> bool:
    places = [one["x"] for one in points]
    return bool(places) and min(places) > 0 and max(places) > 8 * min(places)


def arms_of(made: dict[str, list[Panel]], layout: dict[str, Any]) -> dict[str, str]:
    """Each line of any panel with its colour, as in the study's figure."""
    marks = [one for panels in made.values() for own in panels for one in (*own["points"], *own["lines"])]
    names = list(dict.fromkeys(one["arm"] for one in marks))
    reference = layout["reference"].get("arm")
    if layout["frontier"]:
        names = sorted(names, key=lambda name: (name != reference, name))
    return colours_of(names, layout)
