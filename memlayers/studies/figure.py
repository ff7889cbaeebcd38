"""The figure of a study on paper: its panels, a row for each world, of frontiers a column."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would choose a backend
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

from memlayers.studies.files import CONF
from memlayers.studies.panels import MARKS, Panel, domain, panels_of

GREY = "#4C566A"  # dense, of any size
QUIET = "#999999"
PALETTE = ("#C1440E", "#1B7F79", "#7B4EA3", "#B8860B", "#2B6CB0", "#A23B72", "#5B8C2A", "#8C564B")
MARKERS, DASHES = ("o", "s", "^", "D", "v", ">", "<", "p"), ("-", "--", ":", "-.")  # of lines of one colour
SALT = 13474  # with which arms of the study `frontier` have colours that differ
STYLE: dict[Any, Any] = {"svg.hashsalt": "memlayers", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "figure.dpi": 150}
ACROSS, TALL, LINE, LETTER = 4.0, 2.9, 0.17, 0.055  # inches: a panel, a line of a flat one, a letter of a label


class Look(NamedTuple):
    """How a line is drawn."""

    colour: str
    marker: str = MARKERS[0]
    dash: str = DASHES[0]


def draw(frame: pandas.DataFrame, layout: dict[str, Any], path: Path) -> list[Path]:
    """Draw path.png and path.svg, the same bytes for the same records; returns them, or [] without a successful run."""
    by_world = panels_of(frame, layout)
    if by_world:
        return saved(lambda: figure_of(by_world, layout["frontier"]), path)
    for kind in (".png", ".svg"):
        path.with_suffix(kind).unlink(missing_ok=True)  # which would be of other records
    return []


def figure_of(by_world: dict[str, list[Panel]], is_frontier: bool) -> Figure:
    looks, most = looks_of(by_world), max(map(len, by_world.values()))
    first = [panels[0] for panels in by_world.values()]
    upright = {mark["arm"] for one in first if not one["flat"] for mark in (*one["lines"], *one["points"])}
    named = {name: look for name, look in looks.items() if name in upright and len(upright) > 1}
    heights = [height_of(panels) for panels in by_world.values()]
    longest = max((len(point["x"]) for one in first if one["flat"] for point in one["points"]), default=0)
    place: dict[str, Any]
    if is_frontier:
        across, down = len(by_world), most
        size, place = (ACROSS * across, 0.9 + TALL * down), {"loc": "outside lower center", "ncols": min(9, 4 * across)}
    else:
        across, down = most, len(by_world)
        beside = LETTER * (longest + max(map(len, named), default=0)) + 0.4
        size = ACROSS * across + beside, max(sum(heights), 0.15 * len(named))
        place = {"loc": "outside right upper"}
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, height_ratios=None if is_frontier else heights)
    for (world, panels), axes in zip(by_world.items(), grid.T if is_frontier else grid, strict=True):
        for one, axis in zip(panels, axes, strict=False):
            draw_panel(axis, one, looks)
            axis.set_title(f"{world}: {one['title']}" if one is panels[0] else one["title"], loc="left", fontsize=8)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
    if named:
        lines = [Line2D([], [], color=c, marker=m, ls=d, lw=1.2, ms=4) for c, m, d in named.values()]
        figure.legend(lines, list(named), fontsize=7, frameon=False, **place)
    return figure


def height_of(panels: list[Panel]) -> float:
    """The height in inches of a world's row."""
    lines = max(len(panels[0]["points"]), 5 * len(panels))  # a panel beside it needs as much as five
    return LINE * lines + 0.9 if panels[0]["flat"] else TALL


def looks_of(by_world: dict[str, list[Panel]]) -> dict[str, Look]:
    """The look of each line. Lines of an arm of ours have its colour, the same in all figures, and differ in marker and
    dash. Then others, by name, and lines of which there are too many, have the colour that fewest have.
    """
    marks = [mark for panels in by_world.values() for one in panels for mark in (*one["lines"], *one["points"])]
    looks: dict[str, Look] = {}
    names = list(dict.fromkeys(mark["arm"] for mark in marks))
    coloured = {name: colour_of(name.partition(",")[0]) for name in names}
    for name in sorted(names, key=lambda name: (coloured[name] is None, name if coloured[name] is None else "")):
        used, colour = [look.colour for look in looks.values()], coloured[name]
        if colour is None or used.count(colour) == len(MARKERS):
            colour = min(PALETTE, key=used.count)
        alike = used.count(colour)
        looks[name] = Look(colour, MARKERS[alike % len(MARKERS)], DASHES[(alike + alike // len(MARKERS)) % len(DASHES)])
    return {name: looks[name] for name in names}


def colour_of(arm: str) -> str | None:
    """The colour of an arm of ours, grey for dense of any size; None for another name. It is drawn by the name, so that
    an arm that is added changes no other's.
    """
    if not any((CONF / kind / f"{arm}.yaml").is_file() for kind in ("ffn", "arm")):
        return None
    drawn = hashlib.sha256(f"{SALT}{arm}".encode()).digest()[0]
    return GREY if arm.partition("_")[0] == "dense" else PALETTE[drawn % len(PALETTE)]


def draw_panel(axis: Axes, panel: Panel, looks: dict[str, Look]) -> None:
    """Draw the marks of a panel. Points have their 95% intervals."""
    flat, names = panel["flat"], [point["x"] for point in panel["points"]]
    for rule in panel["rules"]:
        axis.axhline(rule["y"], ls="--", lw=0.8, color=QUIET)
        where: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        axis.text(1, rule["y"], rule["label"], color=QUIET, fontsize=6, **where)
    for name, (colour, marker, dash) in looks.items():
        marks = {kind: [mark for mark in panel[kind] if mark["arm"] == name] for kind in MARKS if kind != "rules"}
        for piece in dict.fromkeys(mark.get("piece") for mark in marks["lines"]):
            x, y = columns([mark for mark in marks["lines"] if mark.get("piece") == piece], "x", "y")
            axis.plot(x, y, dash, lw=1.8 if colour == GREY else 1.2, color=colour)
            x, low, high = columns([mark for mark in marks["bands"] if mark.get("piece") == piece], "x", "low", "high")
            axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        for is_other in (False, True):
            own = [mark for mark in marks["points"] if mark.get("other", False) == is_other]
            x, y, low, high = columns(own, "x", "y", "low", "high")
            spread = y - low, high - y
            look: dict[str, Any] = {"fmt": "x" if is_other else marker, "color": colour, "ms": 4, "elinewidth": 0.8}
            look |= {"ms": 3, "alpha": 0.5} if panel["rules"] else {}  # a frontier has hundreds of them
            if flat:
                axis.errorbar(y, [names.index(one) for one in x], xerr=spread, **look)
            else:
                axis.errorbar(x, y, spread, **look)
        axis.plot(*columns(marks["bounds"], "x", "y"), "^", ms=2.5, mfc="none", mew=0.6, color=colour)
    if flat:
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set(ylim=(len(names) - 0.5, -0.5), xlim=domain(panel, "y"), xlabel=panel["y"]["title"])
        axis.grid(axis="y", lw=0.3)
        return
    axis.set(xlabel=panel["x"]["title"], ylabel=panel["y"]["title"])
    for side, scale in (("x", axis.xaxis), ("y", axis.yaxis)):
        limits = domain(panel, side)
        if panel[side]["scale"] == "log":
            axis.set(**{f"{side}scale": "log"})
            is_large = limits[0] >= 1 and limits[1] >= 1e4
            scale.set_major_locator(LogLocator(10, (1, 2, 5) if limits[1] < 300 * limits[0] else (1,)))
            scale.set_major_formatter(EngFormatter(sep="") if is_large else StrMethodFormatter("{x:g}"))
            scale.set_minor_formatter(NullFormatter())
        axis.set(**{f"{side}lim": limits})


def columns(marks: list[dict[str, Any]], *keys: str) -> list[numpy.ndarray[Any, Any]]:
    return [numpy.array([mark[key] for mark in marks]) for key in keys]


def saved(panels: Callable[[], Figure], path: Path) -> list[Path]:
    """Save the figure that `panels` returns as path.png and path.svg."""
    with matplotlib.rc_context(STYLE):
        figure = panels()
        if figure.get_layout_engine() is None:
            figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        written = [path.with_suffix(".png"), path.with_suffix(".svg")]
        figure.savefig(written[0], metadata={"Software": None})
        figure.savefig(written[1], metadata={"Date": None})
    return written
