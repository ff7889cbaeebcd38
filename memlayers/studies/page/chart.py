"""Charts in Vega-Lite from panels. The page includes Vega and Vega-Lite once, for all its charts.

The page's script sets the signals `hidden` (names of arms that are switched off) and `current` (the selected run);
colours and fonts come from its style sheet.
"""

import importlib
import math
from typing import Any

from memlayers.studies.figure import DASHES, GREY, PALETTE, Look
from memlayers.studies.panels import MARKS, Panel, domain

EXTRA = 'pip install -e ".[page]" -c constraints.txt'
FONT = "system-ui, sans-serif"
DASHED = dict(zip(DASHES, ([1, 0], [6, 3], [2, 3], [6, 3, 2, 3]), strict=True))
SIDES = ("up", "down", "right", "left")
SHAPES = {"o": "circle", "s": "square", "D": "diamond", "p": "wedge"}
SHAPES |= dict(zip("^v><", (f"triangle-{side}" for side in SIDES), strict=True))
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


def vega_spec(panel: Panel, looks: dict[str, Look]) -> dict[str, Any]:
    """The Vega-Lite specification of a panel, with its data; `looks` of all arms of the study."""
    x = {
        "field": "x",
        "scale": scale(panel, "x"),
        "type": "nominal" if panel["flat"] else "quantitative",
    }
    x |= {"title": panel["x"]["title"], "axis": axis(panel, "x")}
    y = {"field": "y", "scale": scale(panel, "y"), "type": "quantitative", "title": panel["y"]["title"]}
    y |= {"axis": axis(panel, "y")}

    def by_arm(range_: list[Any]) -> dict[str, Any]:
        return {"field": "arm", "type": "nominal", "scale": {"domain": list(looks), "range": range_}, "legend": None}

    colour = by_arm([variable(look.colour) for look in looks.values()])
    dash = by_arm([DASHED[look.dash] for look in looks.values()])
    other = {"condition": {"test": "datum.other === true", "value": "cross"}}
    shape = other | by_arm([SHAPES[look.marker] for look in looks.values()])
    across, up = ("y", "x") if panel["flat"] else ("x", "y")
    spread = {up: y | {"field": "low"}, f"{up}2": {"field": "high"}}
    joined = {"detail": {"field": "piece", "type": "nominal"}}
    shown = {"filter": "indexof(hidden, datum.arm) < 0"}

    def layer(name: str, mark: dict[str, Any], encoding: dict[str, Any], *more: dict[str, str]) -> dict[str, Any]:
        spec = {"data": {"name": name}, "mark": QUIET | {"style": name} | mark}
        return spec | {"encoding": encoding, "transform": [*([] if name == "rules" else [shown]), *more]}

    label = {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "x": {"expr": "width - 2"}}
    rules = [layer("rules", {"type": "rule", "strokeDash": [2, 3], "color": "var(--quiet)"}, {"y": y})]
    rules.append(layer("rules", label, {"y": y, "text": {"field": "label"}}))
    is_current = {"filter": "datum.run === current"}
    ring = {"type": "point", "filled": False, "size": 170, "strokeWidth": 2}
    return {
        "datasets": {name: panel[name] for name in MARKS},
        "width": 440,
        "height": 60 + 18 * len(panel["points"]) if panel["flat"] else 300,
        "autosize": {"type": "fit", "contains": "padding"},
        "params": [{"name": "hidden", "value": []}, {"name": "current", "value": -1}],
        "layer": [
            *(rules if panel["rules"] else []),  # whose axis would be a second one beside names
            {
                "encoding": {across: x, up: y, "color": colour},  # once for all of these, as it names every arm
                "layer": [
                    layer("bands", {"type": "area", "opacity": 0.14}, joined | spread),
                    layer("lines", {"type": "line", "strokeWidth": 1.8}, joined | {"strokeDash": dash}),
                    layer("points", {"type": "rule", "opacity": 0.35}, spread),
                    layer("points", {"type": "point", "filled": True, "size": 44, "opacity": 0.85}, {"shape": shape}),
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


def scale(panel: Panel, side: str) -> dict[str, Any]:
    kind = panel[side]["scale"]
    if kind == "names":
        return {"type": "point", "padding": 0.5, "domain": [point["x"] for point in panel["points"]]}
    return {"type": kind, "domain": domain(panel, side), "nice": False}


def axis(panel: Panel, side: str) -> dict[str, Any]:
    """The axis of a panel; on a log scale, ticks are at 1, 2 and 5 times powers of ten, or at powers only."""
    kind = panel[side]["scale"]
    spec: dict[str, Any] = {"labelOverlap": "greedy", "grid": True}
    if kind == "names":
        spec |= {"labelOverlap": False, "labelLimit": 220}
    if kind == "linear":
        spec["tickCount"] = 5
    if kind == "log":
        low, high = domain(panel, side)
        steps = (1, 2, 5) if high < 1e4 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [step * 10**power for power in powers for step in steps if low <= step * 10**power <= high]
        spec |= {"values": values} if len(values) > 1 else {}  # between two of them Vega has ticks of its own
        spec["format"] = "~s" if high >= 1000 else "~g"
    return spec
