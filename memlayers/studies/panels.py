"""The figures of a study as data, which figure.py draws on paper and page/chart.py on a page.

A panel     {"title", "flat", "x", "y": {"title", "scale"}, "rules", "lines", "bands", "points", "bounds"}
a scale     linear, log, or names, from the first point's to the last's; flat: x runs down, and y across; y also says
            whether it "is_share", from 0 to 1
its marks   {"arm": the name of their line, "x", "y"}, with "low" and "high" for bands and points. A point has "runs",
            the labels of its rows in the DataFrame, and of a frontier "other", whether its table has another size than
            the world's; marks of a line with gaps have the number of their "piece".
"""

from typing import Any

import numpy
import pandas

from memlayers.studies.frame import is_share, label, texts
from memlayers.studies.frontier import complete, family, front, has_main_size, multipliers, points_of, seeds_a_point
from memlayers.studies.labels import labels_of, spelt
from memlayers.studies.table import INDEX, axes_in, estimate, first_number, is_number, table

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
    settings = {f"config.{x}", f"axes.{x}"} & set(frame)
    measured = [x] if x in frame and not settings and pandas.api.types.is_numeric_dtype(frame[x]) else []
    rows = table(frame, layout | {"readouts": [*layout["readouts"], *measured]})
    axes = axes_in(rows)
    if x not in (None, "arm", *axes, *measured):
        raise ValueError(f"report.x: {x} is no axis of the table; accepted: one, as in report.rows, or a read-out")
    varied = [axis for axis in ("study", *axes) if rows[axis].nunique() > 1]
    x = axis_of_curves(rows, varied) if x in (None, "arm") else x
    rows["line"] = labels_of(rows, [axis for axis in varied if axis != x], only_arm(frame))
    known: dict[str, Any] = dict.fromkeys(axes, "-")  # of an axis that no run has yet
    known |= {label(name): texts(frame[name]) for name in sorted(frame, reverse=True) if label(name) in axes}
    runs = frame[list(INDEX)].assign(**known).groupby([*INDEX, *axes]).groups
    by_world = {}
    for world, own in rows.groupby("world", sort=False):
        own, of_world = own[own[y].notna()], frame[frame["world"] == world]
        if own.empty:
            continue
        shown = ("held_out" if of_world["held_out"].notna().any() else "recall") if y == "recalled" else y
        title = f"{spelt(shown)}, n = {seeds(own)}"
        ends = {"y": own[y], "low": own[f"{y}_low"].fillna(own[y]), "high": own[f"{y}_high"].fillna(own[y])}
        marks = pandas.DataFrame({"arm": own["line"], **ends})
        marks["runs"] = [list(runs[tuple(row[name] for name in (*INDEX, *axes))]) for _, row in own.iterrows()]
        if x and x in axes and are_numbers(own[x]):
            marks["x"] = own[x].map(first_number)
            marks = marks.sort_values("x", kind="stable")
            made = [panel(title, spelt(x.rpartition(".")[2]), "log" if wide(marks["x"]) else "linear", shown)]
            made[0]["lines"] = marks[["arm", "x", "y"]].to_dict("records")
        elif x and x in measured:
            marks["x"] = own[x]
            marks, scale = marks[marks["x"].notna()], "linear" if is_share(x) or own[x].min() <= 0 else "log"
            made = [panel(f"{spelt(shown)} against {spelt(x)}, n = {seeds(own)}", spelt(x), scale, shown)]
        else:
            several = [axis for axis in ("study", *axes) if own[axis].nunique() > 1]
            marks["x"] = labels_of(own, several, only_arm(of_world))
            marks = marks.sort_values("y", ascending=False, kind="stable")
            made = [panel(title, "", "names", shown) | {"flat": True}]
            if not x and len(marks) <= FEW:
                made += during_training(of_world, marks)
        made[0]["points"] = marks.to_dict("records")
        by_world[str(world)] = made
    return by_world


def only_arm(frame: pandas.DataFrame) -> str:
    return str(frame["arm"].iloc[0]) if frame["arm"].nunique() == 1 else ""


def axis_of_curves(rows: pandas.DataFrame, axes: list[str]) -> str | None:
    """The only axis of three or more numbers, of which every line has several; None if there is none, or two."""
    swept = [axis for axis in axes if rows[axis].nunique() > 2 and rows[axis].map(is_number).all()]
    lines = ["study", "world", *(axis for axis in axes if axis not in ("study", *swept))]
    return swept[0] if len(swept) == 1 and rows.groupby(lines)[swept[0]].nunique().min() > 1 else None


def are_numbers(values: pandas.Series) -> bool:
    """Whether these are several numbers, or lists that their first numbers tell apart."""
    is_one = values.map(lambda value: is_number(value) or value.startswith("["))
    return bool(is_one.all()) and values.map(first_number).nunique() == values.nunique() > 1


def during_training(frame: pandas.DataFrame, points: pandas.DataFrame) -> list[Panel]:
    """Mean recall of each point's runs against exposures, in one panel; none of runs without probes."""
    made = panel("recall during training", "exposures of a fact", "linear", "recall")
    for _, point in points.iterrows():
        curves = frame.loc[point["runs"]].get("training.curve", pandas.Series(dtype=object)).dropna()
        probes = pandas.DataFrame([probe for curve in curves for probe in curve])
        if len(probes):
            means = probes.groupby("exposures")["recall"].mean()
            made["lines"] += [{"arm": point["arm"], "x": place, "y": mean} for place, mean in means.items()]
    made["rules"] = [rule for rule in bounds_of(frame) if rule["y"] < 1]
    return [made] if made["lines"] else []


def of_frontiers(frame: pandas.DataFrame, layout: dict[str, Any]) -> list[Panel]:
    """Every configuration of one world with the front of each arm's; and multiples of the reference's cost."""
    reference, y = str(layout["reference"]["arm"]), layout["y"]
    by_arm = points_of(frame, "training_flops", reference, y)
    often = f"n = {seeds_a_point(by_arm)} a point"
    is_main = has_main_size(frame)
    often += "" if is_main.all() else " (crosses: other tables)"
    left = panel(f"{spelt(y)}, {often}", "training FLOPs", "log", y)
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
    """A panel without marks; y is a read-out, or another title."""
    marks: Panel = {name: [] for name in MARKS}
    axes = {"x": {"title": x, "scale": scale}, "y": {"title": spelt(y), "scale": "linear", "is_share": is_share(y)}}
    return {"title": title, "flat": False} | axes | marks


def bounds_of(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """What a model recalls that knows no subject, where that is known, and one that knows all."""
    floors = frame.get("recall.floor", pandas.Series(dtype=float)).dropna()
    rules = [{"y": floor, "label": "commonest object"} for floor in floors[:1]]
    return [*rules, {"y": 1, "label": "lookup in the facts"}]


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
    return [min(0, 1.04 * low), 1.04 if panel[side].get("is_share") else 1.04 * max(0, high) or 1]
