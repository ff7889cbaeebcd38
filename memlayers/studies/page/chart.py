"""Charts in Vega-Lite from panels. The page includes Vega and Vega-Lite once, for all its charts.

The page's script sets the signals `hidden` (names of arms that are switched off) and `current` (the selected run);
colours and fonts come from its style sheet.
"""

import importlib
import math
from typing import Any

from memlayers.studies.figure import GREY, PALETTE
from memlayers.studies.frame import SHARES
from memlayers.studies.page.panels import MARKS, Panel

EXTRA = 'pip install -e ".[page]" -c constraints.txt'
FONT = "system-ui, sans-serif"
QUIET = {"aria": False}  # the page has its own labels and keyboard navigation


def vl_convert() -> Any:
    """The package that includes Vega. Raises ValueError if it is not installed."""
    try:
        return importlib.import_module("vl_convert")
    except ImportError:
        raise ValueError(f"--html: vl-convert-python is not installed; accepted: after {EXTRA}") from None


def runtime() -> str:
    """Vega and Vega-Lite in JavaScript, as window.vegaEmbed: 0.9 MB, where Plotly would be 4.8 MB."""
    return str(vl_convert().javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def variable(colour: str) -> str:
    """The CSS variable of a colour; the style sheet has lighter values for dark pages."""
    return "var(--grey)" if colour == GREY else f"var(--arm-{PALETTE.index(colour)})"


def vega_spec(panel: Panel, colours: dict[str, str]) -> dict[str, Any]:
    """The Vega-Lite specification of a panel, with its data; `colours` of all arms of the study."""
    x = {
        "field": "x",
        "scale": scale(panel, "x"),
        "type": "nominal" if panel["x"]["scale"] == "point" else "quantitative",
    }
    x |= {"title": panel["x"]["title"], "axis": axis(panel, "x")}
    y = {"field": "y", "scale": scale(panel, "y"), "type": "quantitative", "title": panel["y"]["title"]}
    y |= {"axis": axis(panel, "y")}
    arms = {"domain": list(colours), "range": [variable(colour) for colour in colours.values()]}
    colour = {"field": "arm", "type": "nominal", "scale": arms, "legend": None}
    spread = {"y": y | {"field": "low"}, "y2": {"field": "high"}}
    joined = {"detail": {"field": "piece", "type": "nominal"}}
    shown = {"filter": "indexof(hidden, datum.arm) < 0"}

    def layer(name: str, mark: dict[str, Any], encoding: dict[str, Any], *more: dict[str, str]) -> dict[str, Any]:
        spec = {"data": {"name": name}, "mark": QUIET | {"style": name} | mark}
        return spec | {"encoding": encoding, "transform": [*([] if name == "rules" else [shown]), *more]}

    label = {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "x": {"expr": "width - 2"}}
    is_current = {"filter": "datum.run === current"}
    ring = {"type": "point", "filled": False, "size": 170, "strokeWidth": 2}
    return {
        "datasets": {name: panel[name] for name in MARKS},
        "width": 440,
        "height": 300,
        "autosize": {"type": "fit", "contains": "padding"},
        "params": [{"name": "hidden", "value": []}, {"name": "current", "value": -1}],
        "layer": [
            layer("rules", {"type": "rule", "strokeDash": [2, 3], "color": "var(--quiet)"}, {"y": y}),
            layer("rules", label, {"y": y, "text": {"field": "label"}}),
            {
                "encoding": {"x": x, "y": y, "color": colour},  # once for all of these, as it names every arm
                "layer": [
                    layer("bands", {"type": "area", "opacity": 0.14}, joined | spread),
                    layer("lines", {"type": "line", "strokeWidth": 1.8}, joined),
                    layer("points", {"type": "rule", "opacity": 0.35}, spread),
                    layer("points", {"type": "point", "filled": True, "size": 44, "opacity": 0.85}, {}),
                    layer("bounds", {"type": "point", "filled": False, "size": 26, "shape": "triangle-up"}, {}),
                    layer("points", ring, {}, is_current),
                ],
            },
        ],
        "config": {
            "background": None,
            "font": FONT,
            "view": {"stroke": None},
            "axis": {
                "labelFontSize": 11,
                "titleFontSize": 12,
                "titleFontWeight": 400,
                "titlePadding": 8,
                "domain": False,
            }
            | {"tickSize": 4, "gridOpacity": 1, **QUIET},
        },
    }


def domain(panel: Panel, side: str) -> list[float]:
    """The domain of an axis, over all marks, hidden ones included, so that hiding an arm moves nothing."""
    keys = ("x",) if side == "x" else ("y", "low", "high")
    values = [mark[key] for name in MARKS for mark in panel[name] for key in keys if mark.get(key) is not None]
    is_log = panel[side]["scale"] == "log"
    values = [value for value in values if value > 0 or not is_log] or [1.0]
    low, high = min(values), max(values)
    if is_log:
        return [low / 1.15, high * 1.15]
    is_share = panel[side]["title"].replace(" ", "_") in SHARES
    return [min(0, low), 1.04 if is_share else high * 1.04 or 1]


def scale(panel: Panel, side: str) -> dict[str, Any]:
    kind = panel[side]["scale"]
    if kind == "point":
        return {"type": kind, "padding": 0.5, "domain": list(dict.fromkeys(point["x"] for point in panel["points"]))}
    return {"type": kind, "domain": domain(panel, side), "nice": False}


def axis(panel: Panel, side: str) -> dict[str, Any]:
    """The axis of a panel; on a log scale, ticks are at 1, 2 and 5 times powers of ten, or at powers only."""
    kind = panel[side]["scale"]
    spec: dict[str, Any] = {"labelOverlap": "greedy", "grid": kind != "point"}
    if kind == "linear":
        spec["tickCount"] = 5
    if kind == "log":
        low, high = domain(panel, side)
        steps = (1, 2, 5) if high < 1e4 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        spec["values"] = [step * 10**power for power in powers for step in steps if low <= step * 10**power <= high]
        spec["format"] = "~s" if high >= 1000 else "~g"
    return spec
