"""The figure of a study: recall against training FLOPs, and recall over exposures, drawn from the rows of its table."""

from pathlib import Path
from typing import Any

import matplotlib

from memlayers.table import Row, multiplier

matplotlib.use("Agg")
from matplotlib import pyplot, ticker
from matplotlib.axes import Axes

COLOURS = {"dense": "#4C566A", "memory": "#C1440E", "memory_plus": "#1B7F79", "dense_params": "#8FA3BF"}
STYLE: dict[Any, Any] = {"svg.hashsalt": "memlayers", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "figure.dpi": 150}


def colour(arm: str) -> str:
    return COLOURS.get(arm, COLOURS["dense"] if arm.startswith("dense") else "#7B4EA3")


def draw(worlds: dict[str, list[Row]], path: Path) -> list[Path]:
    """One line of panels a world, saved as path.png and path.svg; returns both."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(len(worlds), 2, figsize=(9, 3.1 * len(worlds)), squeeze=False)
        for (world, table), (left, right) in zip(worlds.items(), axes, strict=True):
            compute_panel(left, table)
            left.set_title(f"{world} (n = {table_n(table)})", loc="left", fontsize=9, fontweight="bold")
            curve_panel(right, table)
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
        axes.annotate(row.arm, (row.training_flops, row.recall.mean), (5, 4), textcoords="offset points", fontsize=7)
    memories = [row for row in table if not row.arm.startswith("dense")]
    if memories:
        best = max(memories, key=lambda row: row.recall.mean)
        found = multiplier(table, best)
        if found is not None:
            times, reached = found
            end = best.training_flops * times
            axes.plot([best.training_flops, end], [best.recall.mean] * 2, ls=":", color=colour(best.arm), zorder=0)
            text = f"{'' if reached else 'more than '}{times:.1f}x compute"
            axes.annotate(text, (end, best.recall.mean), (-4, -10), textcoords="offset points", ha="right", fontsize=7)
    axes.axhline(table[0].floor, ls="--", lw=0.8, color="#999999")
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="recall (whole objects)")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda flops, _: f"{flops:.0e}".replace("e+", "e")))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_ylim(bottom=0)
    axes.margins(x=0.15)


def curve_panel(axes: Axes, table: list[Row]) -> None:
    """Recall on the way, with the floor of a model that knows no subject."""
    for row in table:
        exposures = [point for point, _ in row.curve]
        axes.plot(exposures, [recall for _, recall in row.curve], color=colour(row.arm), lw=1.2, marker=".", ms=4)
    top = max(row.curve[-1][1] for row in table)
    lowest = -1.0
    for row in sorted(table, key=lambda row: row.curve[-1][1]):  # names from below, none on top of another
        end, recall = row.curve[-1]
        lowest = max(recall, lowest + 0.055 * top)
        axes.annotate(row.arm, (end, lowest), (4, 0), textcoords="offset points", fontsize=7, va="center")
    axes.axhline(table[0].floor, ls="--", lw=0.8, color="#999999")
    axes.annotate(
        "commonest object", (0, table[0].floor), (2, 2), textcoords="offset points", fontsize=6, color="#777777"
    )
    axes.set(xlabel="exposures of a fact", ylabel="recall on the way")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.18)
