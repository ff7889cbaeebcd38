"""What scripts/bench.py saved, as the section of RESULTS.md on speed and its figure."""

import json
from pathlib import Path
from typing import Any

from benches.level import MEMORIES
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memlayers.studies.figure import saved

OURS = "memlayers"
QUESTION = """What does a training step cost beside dense of the same FLOPs, beside other implementations, and as the
table grows? Each `x` is the median of ratios to ours, sides taking turns in one process of one thread. Ours has
row-wise Adagrad, and lazy Adam in a column of its own; the others have the optimizer that their authors document, and
torch's fused one where that is another. PEER reads two tables of the size given; fbgemm's table is compared with ours
alone."""


def load(folder: Path) -> dict[str, Any]:
    """The saved measurements, by part."""
    names = ("flat", "level", "peers", "limit", "parts", "trace", "summary")
    texts = {name: folder / f"{name}.json" for name in names}
    return {part: json.loads(path.read_text()) for part, path in texts.items() if path.exists()}


def section(found: dict[str, Any]) -> str:
    """The section: targets in a sentence, and a table with a row for each shape: our milliseconds, and the peers'
    ratios.
    """
    targets = found["summary"]["targets"]
    missed = [f"{one['name']}: {one['value']:g}, asked for {one['limit']:g}" for one in targets if not one["holds"]]
    level = sorted(found["level"]["measured"].items(), key=lambda item: int(item[0]))
    text = f"At equal FLOPs per token, the training step of {' and of '.join(MEMORIES)} takes "
    text += ", ".join(f"{both(one, 'to_dense')} times dense's at width {width}" for width, one in level)
    text += "; the match makes that dense model narrower, and beside one of the same d_model it is "
    text += ", ".join(both(one, "to_dense_as_wide") for _, one in level)
    sizes = found["flat"]["measured"]["sizes"]
    last = max(sizes, key=int)
    whole = sizes[last]["step"]["ms"] / sizes["14"]["step"]["ms"]
    text += (
        f". With 2^{last} slots a step takes {whole:.2f} times what it takes with 2^14, and "
        f"{sizes[last]['net_to_2**14']:.2f} times without the search, which grows as the square root. "
        f"{len(targets) - len(missed)} of {len(targets)} targets hold"
    )
    text += f" (not: {'; '.join(missed)})." if missed else "."
    shapes = found["peers"]["measured"]
    names = list(shapes[0]["ratios"])
    lines = ["| width | slots | k | memlayers, ms | " + " | ".join(names) + " |"]
    lines.append("|" + " --- |" * (len(names) + 4))
    for one in shapes:
        ratios = " | ".join(f"{one['ratios'][name]:.1f}x" for name in names)
        ours = f"{one['times'][OURS]['ms']:.0f}"
        lines.append(f"| {one['width']} | 2^{one['log2_slots']} | {one['topk']} | {ours} | {ratios} |")
    head = f"## speed\n\n{QUESTION}\n\n{text}\n\n    python scripts/bench.py\n\n" + "\n".join(lines)
    tables = [table(found) for part, table in (("parts", parts), ("trace", trace)) if part in found]
    return "\n\n".join([head, *tables, "![Step time against slots](results/bench/speed.png)"])


def both(one: dict[str, Any], key: str) -> str:
    return " and ".join(f"{one[arm][key]:.2f}" for arm in MEMORIES)


def parts(found: dict[str, Any]) -> str:
    """A table of the time of each function, in all implementations."""
    shapes = found["parts"]["measured"]
    heads = [f"{name} shape, {how}" for name, one in shapes.items() for how in next(iter(one.values()))]
    lines = ["| ms | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    for part in next(iter(shapes.values())):
        times = [f"{taken['ms']:.2f}" for one in shapes.values() for taken in one[part].values()]
        lines.append(f"| {part} | " + " | ".join(times) + " |")
    return "\n".join(lines)


def trace(found: dict[str, Any]) -> str:
    """A table of milliseconds per step of the study's runs, by kind of work."""
    runs = found["trace"]["measured"]
    lines = ["| ms a step | " + " | ".join(runs) + " |", "|" + " --- |" * (len(runs) + 1)]
    for kind in next(iter(runs.values())):
        lines.append(f"| {kind} | " + " | ".join(f"{run[kind]:.2f}" for run in runs.values()) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> list[Path]:
    """Draw step time against slots, of a transformer, and of one layer and its peers, to path.png and path.svg."""

    def panels() -> Figure:
        figure = Figure(figsize=(10.5, 3.4))
        left, right = figure.subplots(1, 2)
        whole(left, found["flat"]["measured"]["sizes"])
        layers(right, found["peers"]["measured"])
        return figure

    return saved(panels, path)


def whole(axes: Axes, sizes: dict[str, Any]) -> None:
    slots = [2 ** int(bits) for bits in sizes]
    axes.plot(slots, [size["step"]["ms"] for size in sizes.values()], marker="o", ms=4, color="#C1440E", label="step")
    net = [size["net_ms"] for size in sizes.values()]
    axes.plot(slots, net, marker="o", ms=4, color="#1B7F79", label="without the search")
    axes.set(xlabel="slots", ylabel="training step, ms")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_title("transformer of width 64, 1,024 tokens", loc="left", fontsize=9, fontweight="bold")
    axes.legend(fontsize=7, frameon=False)


def layers(axes: Axes, shapes: list[dict[str, Any]]) -> None:
    width, topk = shapes[0]["width"], shapes[0]["topk"]
    chosen = [entry for entry in shapes if (entry["width"], entry["topk"]) == (width, topk)]
    names = [name for name in chosen[0]["times"] if "Adagrad" not in name]
    for name in sorted(names, key=lambda name: -chosen[-1]["times"][name]["ms"]):
        times = [entry["times"][name]["ms"] for entry in chosen]
        look: dict[str, Any] = {"color": "#C1440E", "lw": 2} if name.startswith(OURS) else {"lw": 1}
        look["ls"] = "--" if name.startswith(OURS) and name != OURS else "-"
        slots = [2 ** entry["log2_slots"] for entry in chosen]
        axes.plot(slots, times, marker="o", ms=4, label=name, **look)
    axes.set(yscale="log", xlabel="slots", ylabel="training step, ms")
    axes.set_xscale("log", base=2)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    title = f"one layer of width {width}, k = {topk}, 2,048 tokens"
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
