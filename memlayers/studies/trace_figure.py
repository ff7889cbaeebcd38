"""A figure of the slots that one question reads, in the grid of all slots (for product keys: rows x columns)."""

import math
from pathlib import Path

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from memlayers.facts.world import known_facts
from memlayers.recall.usage import read_weights
from memlayers.studies.figure import PALETTE
from memlayers.tracing import SlotRead
from memlayers.trained import Trained


def draw(model: Trained, reads: list[SlotRead], title: str, path: Path) -> None:
    """Save `figure_of` to a file. Raises ValueError for a file that matplotlib cannot write."""
    figure = figure_of(model, reads, title)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ValueError(f"--figure={path}: {error}; accepted: a .png, .svg or .pdf in a folder that exists") from None


def figure_of(model: Trained, reads: list[SlotRead], title: str) -> Figure:
    """A panel for each layer: how much all facts read each slot in grey, this question's reads in colours by head."""
    usage = read_weights(model.model, model.text, known_facts(model.text.world))
    figure = Figure(figsize=(5.2 * len(usage), 5.2), layout="constrained")
    axes = figure.subplots(1, len(usage), squeeze=False)
    for axis, (place, weights) in zip(axes[0], usage.items(), strict=True):
        side = math.ceil(math.sqrt(len(weights)))
        grid = torch.zeros(side * side, dtype=weights.dtype)
        grid[: len(weights)] = weights.cpu().abs()
        top = float(grid.max()) or 1.0
        axis.imshow(grid.view(side, side) + 1e-12, cmap="Greys", norm=LogNorm(top * 1e-4, top), interpolation="nearest")
        for read in (read for read in reads if read.place == place):
            row, column = divmod(read.slot, side)
            size = 20 + 600 * abs(read.weight)
            axis.scatter(
                column, row, s=size, color=colour(read.heads[0]), alpha=0.7, edgecolors="white", linewidths=0.8
            )
        heads = sorted({read.heads[0] for read in reads if read.place == place})
        handles = [Line2D([], [], marker="o", ls="", color=colour(head), label=f"head {head}") for head in heads]
        axis.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=len(heads))
        axis.set(title=f"{title}: layer {place}", xlabel="second half of the key", ylabel="first half of the key")
    return figure


def colour(head: int) -> str:
    return PALETTE[head % len(PALETTE)]
