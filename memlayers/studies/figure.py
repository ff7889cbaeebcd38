"""The figure of a study: a read-out against an axis or a read-out, and recall curves; a row of panels a world."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would choose a backend

from memlayers.studies.frame import READOUTS, SHARES, records_on_the_way
from memlayers.studies.table import INDEX, naming, number, table

GREY = "#4C566A"  # the reference, and arms named after it, such as dense_2x
PALETTE = ("#C1440E", "#1B7F79", "#7B4EA3", "#B8860B", "#2B6CB0", "#A23B72", "#5B8C2A", "#8C564B")
MARKERS = ("o", "s", "^", "D")  # of lines of one colour
STYLE: dict[Any, Any] = {"svg.hashsalt": "memlayers", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "figure.dpi": 150}


def draw(frame: pandas.DataFrame, layout: dict[str, Any], path: Path) -> list[Path]:
    """Draw path.png and path.svg, the same bytes for the same records; returns them, or [] without a successful run."""
    frame = frame[frame["status"] == "ok"]
    if frame.empty:
        return []
    rows, x, lines = lines_of(frame, layout)
    colours = colours_of(list(dict.fromkeys(rows["line"])), layout)
    worlds = list(dict.fromkeys(rows["world"]))

    def panels() -> Figure:
        wide = 2 if x == "training_flops" else 1
        legend = 0.05 * rows["label"].str.len().max() if wide == 1 else 0  # inches; 1.5 are left beside one panel
        figure = Figure(figsize=(1 + 4.2 * wide + max(0, legend - 1.5), 3.1 * len(worlds)))
        grid = figure.subplots(len(worlds), wide, squeeze=False)
        for world, panel in zip(worlds, grid, strict=True):
            world_rows = rows[rows["world"] == world]
            against(panel[0], world_rows, x, layout["y"], colours)
            counts = " to ".join(map(str, dict.fromkeys((world_rows["n"].min(), world_rows["n"].max()))))
            panel[0].set_title(f"{world} (n = {counts})", loc="left", fontsize=9)
            for right in panel[1:]:
                on_the_way(right, frame[frame["world"] == world], world_rows, lines, colours)
        return figure

    return saved(panels, path)


def lines_of(frame: pandas.DataFrame, layout: dict[str, Any]) -> tuple[pandas.DataFrame, str, list[str]]:
    """The rows of the table with the name of their `line` and its short `label` in the figure; what is on the x axis,
    an axis of the study or a read-out; and the axes that name a line.
    """
    x = layout["x"] or "training_flops"
    of_runs = [x] if x in frame and not {f"config.{x}", f"axes.{x}"} & set(frame) and x != "arm" else []
    readouts = list(dict.fromkeys([*layout["readouts"], layout["y"], *of_runs, "training_flops", "recall"]))
    rows = table(frame, layout | {"readouts": readouts})
    if x not in rows:
        raise ValueError(f"report.x: {x} is no axis of the table; accepted: one, as in report.rows, or a read-out")
    axes = [name for name in rows.columns[: list(rows.columns).index("n")] if name not in INDEX and name != x]
    lines = [axis for axis in axes if rows[axis].nunique() > 1] or axes[:1]
    rows = rows.assign(line=[naming(row, lines) for _, row in rows.iterrows()])
    return rows.assign(label=labels_of(rows, lines)), x, lines


def labels_of(rows: pandas.DataFrame, lines: list[str]) -> list[str]:
    """Short names of lines: the arm, and the last word of each axis with a value that most rows do not have. The long
    ones where short ones are not unique.
    """
    usual = {axis: rows[axis].mode().iloc[0] for axis in lines}
    labels = []
    for _, row in rows.iterrows():
        own = [axis for axis in lines if axis == "arm" or row[axis] not in (usual[axis], "-")]
        parts = [str(row[axis]) if axis == "arm" else f"{axis.rpartition('.')[2]} = {row[axis]}" for axis in own]
        labels.append(", ".join(parts))
    unique = len(set(zip(rows["line"], labels, strict=True))) == len(set(labels)) and "" not in labels
    return labels if unique else list(rows["line"])


def colours_of(names: list[str], layout: dict[str, Any]) -> dict[str, str]:
    """The colour of each line: grey for the reference and arms named after it, else the palette in turn."""
    reference = str(layout["reference"].get("arm", ""))
    grey = [name for name in names if reference and (name == reference or name.startswith(f"{reference}_"))]
    others = [name for name in names if name not in grey]
    return dict.fromkeys(grey, GREY) | {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(others)}


def against(panel: Axes, rows: pandas.DataFrame, x: str, y: str, colours: dict[str, str]) -> None:
    """Draw y against x with 95% intervals. Points are joined along an axis; if x is a read-out, only the grey ones."""
    is_axis = x not in READOUTS
    places = rows[x].map(number) if is_axis else rows[x]
    words = is_axis and not places.any()
    if words:
        places = rows[x].map({value: place for place, value in enumerate(dict.fromkeys(rows[x]))})
    rows = rows.assign(place=places).sort_values("place")
    count = rows["line"].nunique()
    for order, (name, line) in enumerate(rows.groupby("line", sort=False)):
        spread = [(line[y] - line[f"{y}_low"]).fillna(0), (line[f"{y}_high"] - line[y]).fillna(0)]
        colour = colours[str(name)]
        alike = [other for other, its in colours.items() if its == colour]  # more than one once the palette is used up
        marker = MARKERS[0] if colour == GREY else MARKERS[alike.index(str(name)) % len(MARKERS)]
        style = f"{marker}-" if is_axis and not words else marker
        look: dict[str, Any] = {"fmt": style, "ms": 4, "lw": 1, "capsize": 2, "color": colour}
        aside = 0.6 * ((order + 0.5) / count - 0.5) if words else 0.0  # else lines hide each other
        panel.errorbar(line["place"] + aside, line[y], spread, label=line["label"].iloc[0], **look)
    if not is_axis:
        ladder = rows[rows["line"].map(colours) == GREY]
        panel.plot(ladder["place"], ladder[y], color=GREY, lw=1, zorder=0)
    if words:
        names = list(dict.fromkeys(rows[x]))
        crowded: dict[str, Any] = {"rotation": 25, "ha": "right"} if sum(map(len, names)) > 45 else {}
        panel.set_xticks(range(len(names)), names, **crowded)
    elif x not in SHARES and (not is_axis or (places.min() > 0 and places.max() > 8 * places.min())):
        panel.set_xscale("log")
        panel.set_xlim(places.min() / 1.4, places.max() * 1.4)  # keeps arms of equal cost in one column
    panel.set(xlabel=x.replace("_", " ").replace("flops", "FLOPs"), ylabel=y.replace("_", " "))
    panel.set_ylim(min(0, rows[y].min()), 1.03 if y in SHARES else None)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if x != "training_flops" else {}
    panel.legend(fontsize=6, frameon=False, ncols=1 if beside or rows["line"].nunique() <= 12 else 2, **beside)


def on_the_way(
    panel: Axes, frame: pandas.DataFrame, rows: pandas.DataFrame, lines: list[str], colours: dict[str, str]
) -> None:
    """Draw mean recall against exposures, labelled at the end, with the floor of a model that knows no subject."""
    curves = records_on_the_way(frame, lines)
    if curves.empty:  # runs without probes
        panel.set_axis_off()
        return
    rows = rows[rows["line"].isin(curves["line"])]
    ends = []
    for name in dict.fromkeys(rows["line"]):
        curve = curves[curves["line"] == name].groupby("exposures", sort=True)["recall"].mean()
        panel.plot(curve.index, curve.values, marker=".", ms=3, lw=1.2, color=colours[name])
        ends.append((float(curve.iloc[-1]), float(curve.index[-1]), name))
    short = dict(zip(rows["line"], rows["label"], strict=True))
    for place, (_, last, name) in zip(apart([end for end, _, _ in sorted(ends)]), sorted(ends), strict=True):
        panel.annotate(short[name], (last, place), (4, 0), textcoords="offset points", fontsize=6, va="center")
    panel.axhline(frame["recall.floor"].dropna().iloc[0], ls="--", lw=0.8, color="#999999", label="commonest object")
    panel.legend(loc="upper left", fontsize=6, frameon=False)
    panel.set(xlabel="exposures of a fact", ylabel="recall on the way")
    panel.set_ylim(bottom=0)
    panel.margins(x=0.2)


def apart(heights: list[float]) -> list[float]:
    """Heights of labels near these, which rise, without overlap, and none above the highest of them."""
    lowest, step = -math.inf, 0.055 * heights[-1]
    places = [lowest := max(height, lowest + step) for height in heights]
    highest = heights[-1]
    for index in reversed(range(len(places))):
        places[index] = min(places[index], highest)
        highest = places[index] - step
    return places


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
