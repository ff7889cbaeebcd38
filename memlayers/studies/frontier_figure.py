"""The figure of a study of frontiers: recall against training FLOPs, and how many times dense's an arm stands for."""

from pathlib import Path
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from memlayers.studies.figure import GREY, colours_of, saved
from memlayers.studies.frontier import Points, front, multipliers, points_of, seeds_a_point


def draw_frontiers(frame: pandas.DataFrame, layout: dict[str, Any], path: Path) -> list[Path]:
    """path.png and path.svg: a column of two panels for each world, and one legend."""
    reference = str(layout["reference"]["arm"])
    worlds = [world for world, own in frame.groupby("world", sort=True) if (own["status"] == "ok").any()]
    names = sorted(set(frame["arm"]) - {one for one in frame["arm"] if one.startswith(f"{reference}_")})
    colours = colours_of(sorted(names, key=lambda name: name != reference), layout)

    def panels() -> Figure:
        figure = Figure(figsize=(max(5.2, 3.6 * len(worlds)), 6.4), layout="constrained")
        grid = figure.subplots(2, len(worlds), squeeze=False, sharey="row")
        for world, (above, below) in zip(worlds, grid.T, strict=True):
            own = frame[(frame["world"] == world) & (frame["status"] == "ok")]
            points = points_of(own, "training_flops", reference, layout["y"])
            frontiers(above, points, reference, colours)
            above.axhline(own["recall.floor"].iloc[0], ls="--", lw=0.8, color="#999999", label="commonest object")
            times(below, points, reference, colours)
            below.set_xlabel(layout["y"].replace("_", " "))
            above.set_title(f"{world} (n = {seeds_a_point(points)} seeds a point)", loc="left", fontsize=9)
        grid[0, 0].set_ylabel(layout["y"].replace("_", " "))
        grid[1, 0].set_ylabel(f"training FLOPs of {reference} / of the arm")
        named = {
            name: line for panel in grid.flat for line, name in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        columns = min(6, 2 * len(worlds))
        figure.legend(named.values(), named, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
        return figure

    return saved(panels, path) if worlds else []


def frontiers(panel: Axes, points: dict[str, Points], reference: str, colours: dict[str, str]) -> None:
    """Every configuration as a point, and the front of each arm's with tables of the world's own size."""
    order = list(colours)
    for name, own in sorted(points.items(), key=lambda pair: order.index(pair[0].partition(",")[0])):
        colour = colours[name.partition(",")[0]]
        if name in colours:
            corners = front(own.cost, own.mean)
            width = 2.2 if name == reference else 1.3
            panel.plot(own.cost[corners], own.mean[corners], "-", lw=width, color=colour, label=name)
        marker = "." if name in colours else "x"
        panel.plot(own.cost, own.mean, marker, ms=4 if name in colours else 3, mew=0.7, color=colour, alpha=0.55)
    panel.axhline(1.0, ls=":", lw=0.8, color="#999999", label="lookup in the facts")
    panel.plot([], [], ".", ms=4, color=GREY, alpha=0.55, label="each configuration, in its arm's colour")
    if any(name not in colours for name in points):
        panel.plot([], [], "x", ms=3, mew=0.7, color=GREY, alpha=0.55, label="with a table of another size")
    panel.set(xscale="log", xlabel="training FLOPs", ylim=(0, 1.04))
    panel.tick_params(axis="x", which="minor", labelsize=6)  # labelled in a small study, of less than a decade


def times(panel: Axes, points: dict[str, Points], reference: str, colours: dict[str, str]) -> None:
    """Multiples of the reference's FLOPs with their 95% intervals; open and without interval where bounds."""
    levels = tuple(numpy.round(numpy.arange(0.02, 1.0, 0.02), 2))
    for name in colours:
        if name == reference or name not in points or reference not in points:
            continue
        curve = pandas.DataFrame(multipliers(points[name], points[reference], levels))
        if curve.empty:
            continue
        known = curve[~curve["at_least"]].set_index("recall").reindex(list(levels)).reset_index()  # lines break at gaps
        panel.plot(known["recall"], known["times"], "-", lw=1.3, color=colours[name], label=name)
        panel.fill_between(known["recall"], known["low"], known["high"], color=colours[name], alpha=0.15, lw=0)
        bound = curve[curve["at_least"]]
        panel.plot(bound["recall"], bound["times"], "^", ms=2.5, mfc="none", mew=0.6, color=colours[name])
    panel.axhline(1.0, lw=1.2, color=GREY)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set(xlim=(0, 1.02))
    panel.plot([], [], "^", ms=3, mfc="none", mew=0.6, color=GREY, label=f"at least: {reference} does not get there")
