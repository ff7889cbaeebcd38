"""The figures of a study as data, which figure.py draws on paper and page/chart.py on a page.

A panel     {"title", "flat", "x", "y": {"title", "scale"}, "rules", "lines", "bands", "points", "bounds"}
a scale     linear, log, or names, from the first point's to the last's; flat: x runs down, and y across
its marks   {"arm": the name of their line, "x", "y"}, with "low" and "high" for bands and points. A point has "runs",
            the labels of its rows in the DataFrame; marks of a line with gaps have the number of their "piece".
"""

from typing import Any

import numpy
import pandas

from memlayers.studies.frame import SHARES, label, texts
from memlayers.studies.frontier import complete, family, front, has_main_size, multipliers, points_of, seeds_a_point
from memlayers.studies.table import INDEX, axes_in, estimate, first_number, is_number, naming, table

LEVELS = tuple(numpy.round(numpy.arange(0.02, 1.0, 0.02), 2))
MARKS = ("rules", "lines", "bands", "points", "bounds")
FEW = 8  # most lines of recall during training in one panel
Panel = dict[str, Any]


def panels_of(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, list[Panel]]:
    """The panels of each world; none without a successful run. Raises ValueError for a report.x that is no axis of the
    table and no read-out.
    """
    ok = frame[frame["status"] == "ok"]
    if ok.empty:
        return {}
    if layout["frontier"]:
        return {str(world): of_frontiers(own, layout) for world, own in ok.groupby("world", sort=True)}
    return of_table(ok, layout)


def of_table(frame: pandas.DataFrame, layout: dict[str, Any]) -> dict[str, list[Panel]]:
    """For each world, rows of the table as curves against x if it is an axis with several numbers there, as points if
    it is a read-out, else one below another, the best first, with recall during training if they are few.
    """
    y, x = layout["y"], layout["x"]
    measured = [x] if x in frame and not {f"config.{x}", f"axes.{x}"} & set(frame) and x != "arm" else []
    rows = table(frame, layout | {"readouts": [*layout["readouts"], *measured]})
    axes = axes_in(rows)
    if x not in (None, "arm", *axes, *measured):
        raise ValueError(f"report.x: {x} is no axis of the table; accepted: one, as in report.rows, or a read-out")
    varied = [axis for axis in axes if rows[axis].nunique() > 1] or axes[:1]
    x = x or axis_of_curves(rows, varied)
    others = [axis for axis in varied if axis != x]
    rows["line"] = labels_of(rows, others) if others else ", ".join(sorted(set(frame["arm"])))
    known = {label(name): texts(frame[name]) for name in sorted(frame, reverse=True) if label(name) in axes}
    runs = pandas.DataFrame({name: frame[name] for name in INDEX} | known).groupby([*INDEX, *axes]).groups
    by_world = {}
    for world, own in rows.groupby("world", sort=False):
        own = own[own[y].notna()]
        if own.empty:
            continue
        title = title_of(y, frame[frame["world"] == world])
        ends = {"y": own[y], "low": own[f"{y}_low"].fillna(own[y]), "high": own[f"{y}_high"].fillna(own[y])}
        marks = pandas.DataFrame({"arm": own["line"], **ends})
        marks["runs"] = [list(runs[tuple(row[name] for name in (*INDEX, *axes))]) for _, row in own.iterrows()]
        if x and x in axes and own[x].map(first_number).nunique() > 1:
            marks["x"] = own[x].map(first_number)
            marks = marks.sort_values("x", kind="stable")
            made = [panel(f"{title}, n = {seeds(own)}", spelt(x), "log" if wide(marks["x"]) else "linear", title)]
            made[0]["lines"] = marks[["arm", "x", "y"]].to_dict("records")
        elif x and x in measured:
            marks["x"] = own[x]
            marks, scale = marks[marks["x"].notna()], "linear" if x in SHARES or own[x].min() <= 0 else "log"
            made = [panel(f"{title} against {spelt(x)}, n = {seeds(own)}", spelt(x), scale, title)]
        else:
            marks["x"] = labels_of(own, [axis for axis in axes if own[axis].nunique() > 1] or axes[:1])
            marks = marks.sort_values("y", ascending=False, kind="stable")
            made = [panel(f"{title}, n = {seeds(own)}", "", "names", title) | {"flat": True}]
            if not x and len(marks) <= FEW:
                made += during_training(frame, marks)
        made[0]["points"] = marks.to_dict("records")
        by_world[str(world)] = made
    return by_world


def axis_of_curves(rows: pandas.DataFrame, axes: list[str]) -> str | None:
    """The only axis of three or more numbers, of which every line has several; None if there is none, or two."""
    swept = [axis for axis in axes if rows[axis].nunique() > 2 and rows[axis].map(is_number).all()]
    lines = ["world", *(axis for axis in axes if axis not in swept)]
    return swept[0] if len(swept) == 1 and rows.groupby(lines)[swept[0]].nunique().min() > 1 else None


def title_of(y: str, frame: pandas.DataFrame) -> str:
    """The title of a read-out in one world, where `recalled` is either recall or held_out."""
    return spelt(y) if y != "recalled" else "held out" if frame["held_out"].notna().any() else "recall"


def labels_of(rows: pandas.DataFrame, axes: list[str]) -> list[str]:
    """Short names of rows: the arm, and the last word of each axis with a value that most rows do not have; with all
    values that are there, or all axes in full, where that is not enough to tell them apart.
    """
    if "arm" in axes:  # without axes of which some arms have one value, and others none
        shared = [axis for axis in axes if rows[axis].nunique() == 2 and "-" in set(rows[axis])]
        given = [axis for axis in shared if rows.groupby("arm")[axis].nunique().max() == 1]
        axes = ["arm", *(axis for axis in axes if axis not in ("arm", *given))]
    usual = {axis: rows[axis].mode().iloc[0] for axis in axes}
    full = [naming(row, axes) for _, row in rows.iterrows()]
    for hidden in ({axis: ("-", usual[axis]) for axis in axes}, dict.fromkeys(axes, ("-",))):
        labels = []
        for _, row in rows.iterrows():
            own = [axis for axis in axes if axis == "arm" or row[axis] not in hidden[axis]]
            parts = [str(row[axis]) if axis == "arm" else f"{axis.rpartition('.')[2]} = {row[axis]}" for axis in own]
            labels.append(", ".join(parts))
        if len(set(zip(full, labels, strict=True))) == len(set(labels)) and "" not in labels:
            return labels
    return full


def during_training(frame: pandas.DataFrame, points: pandas.DataFrame) -> list[Panel]:
    """Mean recall of each point's runs against exposures, in one panel; none of runs without probes."""
    made = panel("recall during training", "exposures of a fact", "linear", "recall")
    for _, point in points.iterrows():
        curves = frame.loc[point["runs"]].get("training.curve", pandas.Series(dtype=object)).dropna()
        probes = pandas.DataFrame([probe for curve in curves for probe in curve])
        if len(probes):
            means = probes.groupby("exposures")["recall"].mean()
            made["lines"] += [{"arm": point["arm"], "x": place, "y": mean} for place, mean in means.items()]
    made["rules"] = bounds_of(frame)[:1]
    return [made] if made["lines"] else []


def of_frontiers(frame: pandas.DataFrame, layout: dict[str, Any]) -> list[Panel]:
    """Every configuration of one world with the front of each arm's; and multiples of the reference's cost."""
    reference, y = str(layout["reference"]["arm"]), layout["y"]
    by_arm = points_of(frame, "training_flops", reference, y)
    often = f"n = {seeds_a_point(by_arm)} a point"
    is_main = has_main_size(frame)
    often += "" if is_main.all() else " (crosses: other tables)"
    left = panel(f"{spelt(y)}, {often}", "training FLOPs", "log", spelt(y))
    right = panel(f"FLOPs of {reference} / of the arm (triangles: at least)", spelt(y), "linear", "times")
    right["y"]["scale"], right["rules"], left["rules"] = "log", [{"y": 1, "label": reference}], bounds_of(frame)
    own_first = sorted(by_arm, key=lambda arm: (arm != reference, arm))
    for arm in (arm for arm in own_first if arm in set(frame["arm"])):  # others: with tables of another size
        cost, recall = by_arm[arm].cost, by_arm[arm].mean
        left["lines"] += [{"arm": arm, "x": cost[i], "y": recall[i]} for i in front(cost, recall)]
        if arm == reference or reference not in by_arm:
            continue
        known = 0
        for level in multipliers(by_arm[arm], by_arm[reference], LEVELS):
            mark = {"arm": arm, "x": level["recall"], "y": level["times"]}
            if level["at_least"]:
                right["bounds"].append(mark)
                continue
            mark["piece"] = LEVELS.index(level["recall"]) - known  # the same for all without a gap between them
            known += 1
            right["lines"].append(mark)
            right["bands"].append(mark | {"low": level["low"], "high": level["high"]})
    for (arm, _), runs in complete(frame).groupby(["arm", "digest"], sort=True):
        mean, low, high = estimate(y, runs[y]).values()
        if not pandas.isna(mean):
            place = {"arm": family(str(arm), reference), "x": runs["training_flops"].median(), "y": mean}
            ends = {"low": mean if pandas.isna(low) else low, "high": mean if pandas.isna(high) else high}
            left["points"].append(place | ends | {"runs": list(runs.index), "other": not is_main[runs.index[0]]})
    return [left, right]


def panel(title: str, x: str, scale: str, y: str) -> Panel:
    marks: Panel = {name: [] for name in MARKS}
    axes = {"x": {"title": x, "scale": scale}, "y": {"title": y, "scale": "linear"}}
    return {"title": title, "flat": False} | axes | marks


def spelt(name: str) -> str:
    """The title of a read-out or an axis."""
    return name.rpartition(".")[2].replace("_", " ").replace("flops", "FLOPs").replace("auroc", "AUROC")


def bounds_of(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """What a model recalls that knows no subject, and one that knows all."""
    floor = frame["recall.floor"].dropna().iloc[0]
    return [{"y": floor, "label": "commonest object"}, {"y": 1, "label": "lookup in the facts"}]


def seeds(rows: pandas.DataFrame) -> str:
    return " to ".join(map(str, dict.fromkeys((rows["n"].min(), rows["n"].max()))))


def wide(places: pandas.Series) -> bool:
    return bool(places.min() > 0 and places.max() > 8 * places.min())


def domain(panel: Panel, side: str) -> list[float]:
    """The domain of an axis, over all marks, so that hiding an arm moves nothing."""
    keys = ("x",) if side == "x" else ("y", "low", "high")
    values = [mark[key] for name in MARKS for mark in panel[name] for key in keys if mark.get(key) is not None]
    is_log = panel[side]["scale"] == "log"
    values = [value for value in values if value == value and (value > 0 or not is_log)] or [1.0]
    low, high = min(values), max(values)
    if is_log:
        return [low / 1.15, high * 1.15]
    is_share = panel[side]["title"].replace(" ", "_") in SHARES
    return [min(0, low), 1.04 if is_share else high * 1.04 or 1]
