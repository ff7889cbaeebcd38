"""The figure of a study: recall against training FLOPs, and recall over exposures, drawn from the rows of its table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from memlayers.studies.table import Row, multiplier

matplotlib.use("Agg")
from matplotlib import pyplot, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"dense": "#4C566A", "memory": "#C1440E", "memory_plus": "#1B7F79", "dense_params": "#8FA3BF"}
STYLE: dict[Any, Any] = {"svg.hashsalt": "memlayers", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "figure.dpi": 150}


def colour(arm: str) -> str:
    return COLOURS.get(arm, COLOURS["dense"] if arm.startswith("dense") else "#7B4EA3")


def draw(worlds: dict[str, list[Row]], path: Path) -> list[Path]:
    """One line of panels a world, saved as path.png and path.svg; returns both."""

    def panels() -> Figure:
        figure, axes = pyplot.subplots(len(worlds), 2, figsize=(9, 3.1 * len(worlds)), squeeze=False)
        for (world, table), (left, right) in zip(worlds.items(), axes, strict=True):
            compute_panel(left, table)
            left.set_title(f"{world} (n = {table_n(table)})", loc="left", fontsize=9, fontweight="bold")
            curve_panel(right, table)
        return figure

    return saved(panels, path)


def saved(panels: Callable[[], Figure], path: Path) -> list[Path]:
    """The figure that `panels` makes, in this project's style, as path.png and path.svg; returns both."""
    with matplotlib.rc_context(STYLE):
        figure = panels()
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        written = [path.with_suffix(".png"), path.with_suffix(".svg")]
        figure.savefig(written[0])
        figure.savefig(written[1], metadata={"Date": None})
        pyplot.close(figure)
    return written


def table_n(table: list[Row]) -> str:
    counts = sorted({row.n for row in table})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def compute_panel(axes: Axes, table: list[Row]) -> None:
    """Recall against training FLOPs; the dense arms that spend more compute are joined, the multiplier is drawn."""
    ladder = [row for row in table if row.arm.startswith("dense")]
    ladder.sort(key=lambda row: row.training_flops)
    axes.plot(
        [r.training_flops for r in ladder], [r.recall.mean for r in ladder], color=colour("dense"), lw=1, zorder=1
    )
    for row in table:
        low, high = row.recall.low, row.recall.high
        error = None if low is None or high is None else [[row.recall.mean - low], [high - row.recall.mean]]
        axes.errorbar(row.training_flops, row.recall.mean, error, fmt="o", ms=5, color=colour(row.arm), capsize=2)
    first = min(row.training_flops for row in table)
    cheapest = [row for row in table if row.training_flops < 1.2 * first]  # as dear as each other: names to their left
    for row, height in spread(cheapest, lambda row: row.recall.mean, max(row.recall.mean for row in table)):
        place = (cheapest[0].training_flops, height)
        axes.annotate(row.arm, place, (-7, 0), textcoords="offset points", fontsize=7, ha="right", va="center")
    for row in table:
        if row not in cheapest:
            place = (row.training_flops, row.recall.mean)
            axes.annotate(row.arm, place, (6, -9), textcoords="offset points", fontsize=7)
    memories = [row for row in table if not row.arm.startswith("dense")]
    if memories:
        best = max(memories, key=lambda row: row.recall.mean)
        found = multiplier(table, best)
        if found is not None:
            times, reached = found
            end = best.training_flops * times
            axes.plot([best.training_flops, end], [best.recall.mean] * 2, ls=":", color=colour(best.arm), zorder=0)
            cheap = min(ladder, key=lambda row: row.training_flops).recall.mean
            bound = "more than " if not reached else "at most " if cheap >= best.recall.mean else ""
            place = (best.training_flops * times**0.5, best.recall.mean)
            text = f"{best.arm}: {bound}{times:.1f}x compute"
            axes.annotate(text, place, (0, 4), textcoords="offset points", ha="center", fontsize=7)
    axes.axhline(table[0].floor, ls="--", lw=0.8, color="#999999")
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="recall (whole objects)")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda flops, _: f"{flops:.0e}".replace("e+", "e")))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.margins(x=0.42, y=0.1)
    axes.set_ylim(bottom=0)


def spread(table: list[Row], height: Callable[[Row], float], top: float) -> list[tuple[Row, float]]:
    """Heights for the names of rows, near their own but none on top of another, from below."""
    placed, lowest = [], -1.0
    for row in sorted(table, key=height):
        lowest = max(height(row), lowest + 0.06 * top)
        placed.append((row, lowest))
    return placed


def curve_panel(axes: Axes, table: list[Row]) -> None:
    """Recall on the way, with the floor of a model that knows no subject."""
    for row in table:
        exposures = [point for point, _ in row.curve]
        axes.plot(exposures, [recall for _, recall in row.curve], color=colour(row.arm), lw=1.2, marker=".", ms=4)
    top = max(row.curve[-1][1] for row in table)
    for row, lowest in spread(table, lambda row: row.curve[-1][1], top):
        place = (row.curve[-1][0], lowest)
        axes.annotate(row.arm, place, (4, 0), textcoords="offset points", fontsize=7, va="center")
    axes.axhline(table[0].floor, ls="--", lw=0.8, color="#999999", label="commonest object")
    axes.legend(loc="upper left", fontsize=7, frameon=False)
    axes.set(xlabel="exposures of a fact", ylabel="recall on the way")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.18)
