"""The figures of a study as data: panels of lines, bands and points, and the runs behind each point.

A panel     {"title", "x", "y": {"title", "scale", "domain"}, "rules", "lines", "bands", "points"}
its marks   rows with "arm" (the name of their line) and coordinates; a point has the index of its "run", and
            each mark of a line with gaps the number of its "piece"
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


def panels_of_frontiers(frame: pandas.DataFrame, layout: dict[str, Any], runs: Runs) -> dict[str, list[Panel]]:
    """Two panels for each world, as in the figure of memlayers.studies.frontier_figure."""
    reference, y = str(layout["reference"]["arm"]), layout["y"]
    by_world = {}
    for world, world_frame in frame.groupby("world", sort=True):
        points, lines, bands, bounds, curves = [], [], [], [], []
        by_arm = points_of(world_frame, "training_flops", reference, y)
        arms = set(world_frame["arm"])
        for arm, configurations in by_arm.items():
            if arm not in arms:
                continue  # of tables of another size: points without a front
            cost, recall = configurations.cost, configurations.mean
            lines += [{"arm": arm, "x": cost[i], "y": recall[i]} for i in front(cost, recall)]
            if arm == reference or reference not in by_arm:
                continue
            levels = multipliers(configurations, by_arm[reference], LEVELS)
            places = [{"arm": arm, "x": level["recall"], "y": level["times"]} for level in levels]
            bounds += [place for place, level in zip(places, levels, strict=True) if level["at_least"]]
            known = [level for level in levels if not level["at_least"]]
            for index, level in enumerate(known):
                piece = LEVELS.index(level["recall"]) - index  # the same for all without a gap between them
                place = {"arm": arm, "x": level["recall"], "y": level["times"], "piece": piece}
                curves.append(place)
                bands.append(place | {"low": level["low"], "high": level["high"]})
        for (arm, _), rows in complete(world_frame).groupby(["arm", "digest"], sort=True):
            name = family(str(arm), reference)
            spread = {key.replace(y, "y"): value for key, value in estimate(y, rows[y]).items()}
            points.append(point(name, rows["training_flops"].median(), spread, runs.add(rows)))
        title = spelt(y)
        left = panel(
            f"{title} against training FLOPs, {seeds_a_point(by_arm)} seeds a point", "training FLOPs", "log", title
        )
        left |= {"rules": rules(world_frame), "lines": lines, "points": points}
        heading = f"how many times an arm's FLOPs {reference} needs" + (" (triangles: at least)" if bounds else "")
        right = panel(heading, title, "linear", f"FLOPs of {reference} / the arm's")
        right["y"]["scale"] = "log"
        right |= {"rules": [{"y": 1, "label": reference}], "lines": curves, "bands": bands, "bounds": bounds}
        by_world[str(world)] = [left, right]
    return by_world


def panels_of(frame: pandas.DataFrame, layout: dict[str, Any], runs: Runs) -> dict[str, list[Panel]]:
    """One or two panels for each world, as in the figure of memlayers.studies.figure."""
    rows, x, names = lines_of(frame, layout)
    keys = [name for name in rows.columns[: list(rows.columns).index("n")] if name not in INDEX]
    known = {label(name): texts(frame[name]) for name in sorted(frame, reverse=True) if label(name) in keys}
    is_axis, by_world = x not in READOUTS, {}
    words = is_axis and not rows[x].map(number).any()
    for world, world_rows in rows.groupby("world", sort=False):
        points = []
        for _, row in world_rows.iterrows():
            cell = (frame["world"] == world) & (frame["study"] == row["study"])
            for key in keys:
                cell &= known[key] == row[key]
            place = row[x] if words or not is_axis else number(row[x])
            spread = {end: row[f"{layout['y']}{end}"] for end in ("", "_low", "_high")}
            points.append(point(row["line"], place, {f"y{end}": v for end, v in spread.items()}, runs.add(frame[cell])))
        points = [mark for mark in points if mark["y"] is not None]
        scale = "point" if words else "linear" if is_axis and wide(points) is False else "log"
        first = panel(spelt(f"{layout['y']} against {x}"), spelt(x), scale, spelt(layout["y"]))
        joined = sorted(points, key=lambda mark: mark["x"]) if is_axis and not words else []
        by_world[str(world)] = [
            first | {"points": points, "lines": [{k: mark[k] for k in ("arm", "x", "y")} for mark in joined]}
        ]
        if x == "training_flops":
            by_world[str(world)] += on_the_way(frame[frame["world"] == world], names)
    return by_world


def on_the_way(frame: pandas.DataFrame, names: list[str]) -> list[Panel]:
    """The recall curves, in one panel; none of runs without probes."""
    means = records_on_the_way(frame, names).groupby(["line", "exposures"], sort=True)["recall"].mean()
    if means.empty:
        return []
    lines = [{"arm": line, "x": x, "y": y} for (line, x), y in means.items()]
    curves = panel("recall on the way", "exposures of a fact", "linear", "recall")
    return [curves | {"rules": rules(frame)[:1], "lines": lines}]


def panel(title: str, x: str, scale: str, y: str) -> Panel:
    marks: Panel = {name: [] for name in MARKS}
    return marks | {"title": title, "x": {"title": x, "scale": scale}, "y": {"title": y, "scale": "linear"}}


def spelt(name: str) -> str:
    """The title of a read-out or an axis."""
    return name.replace("_", " ").replace("flops", "FLOPs").replace("auroc", "AUROC")


def point(arm: str, x: Any, y: dict[str, float], run: int) -> dict[str, Any]:
    low, high = ((y["y"] if pandas.isna(y[end]) else y[end]) for end in ("y_low", "y_high"))
    return {"arm": arm, "x": x, "y": None if pandas.isna(y["y"]) else y["y"], "low": low, "high": high, "run": run}


def rules(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    return [
        {"y": frame["recall.floor"].dropna().iloc[0], "label": "commonest object"},
        {"y": 1, "label": "lookup in the facts"},
    ]


def wide(points: list[dict[str, Any]]) -> bool:
    places = [mark["x"] for mark in points]
    return bool(places) and min(places) > 0 and max(places) > 8 * min(places)


def arms_of(by_world: dict[str, list[Panel]], layout: dict[str, Any]) -> dict[str, str]:
    """The colour of each line of all panels, as in the study's figure."""
    marks = [
        mark
        for panels in by_world.values()
        for world_panel in panels
        for mark in (*world_panel["points"], *world_panel["lines"])
    ]
    names = list(dict.fromkeys(mark["arm"] for mark in marks))
    reference = layout["reference"].get("arm")
    if layout["frontier"]:
        names = sorted(names, key=lambda name: (name != reference, name))
    return colours_of(names, layout)
