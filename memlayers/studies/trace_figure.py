"""Where the reads of one question lie among all slots: for product keys, the grid of both halves."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from memlayers.facts.world import known_facts
from memlayers.recall.usage import read_weights
from memlayers.tracing import SlotRead
from memlayers.trained import Trained


def draw(model: Trained, reads: list[SlotRead], title: str, path: Path) -> None:
    """A panel a layer: in grey how much all facts read each slot, in colour by head what this question reads.

    Raises ValueError for a file that matplotlib cannot write.
    """
    usage = read_weights(model.model, model.text, known_facts(model.text.world))
    figure, axes = plt.subplots(1, len(usage), figsize=(5.2 * len(usage), 5.2), squeeze=False, layout="constrained")
    for axis, (place, weights) in zip(axes[0], usage.items(), strict=True):
        side = math.ceil(math.sqrt(len(weights)))
        grid = torch.zeros(side * side, dtype=weights.dtype)
        grid[: len(weights)] = weights.cpu().abs()
        top = float(grid.max()) or 1.0
        axis.imshow(grid.view(side, side) + 1e-12, cmap="Greys", norm=LogNorm(top * 1e-4, top), interpolation="nearest")
        for one in (one for one in reads if one.place == place):
            row, column = divmod(one.slot, side)
            size = 20 + 600 * abs(one.weight)
            axis.scatter(column, row, s=size, color=f"C{one.heads[0]}", alpha=0.7, edgecolors="white", linewidths=0.8)
        heads = sorted({one.heads[0] for one in reads if one.place == place})
        handles = [Line2D([], [], marker="o", ls="", color=f"C{head}", label=f"head {head}") for head in heads]
        axis.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.08), ncols=len(heads))
        axis.set(title=f"{title}: layer {place}", xlabel="second half of the key", ylabel="first half of the key")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ValueError(f"--figure={path}: {error}; accepted: a .png, .svg or .pdf in a folder that exists") from None
    finally:
        plt.close(figure)
