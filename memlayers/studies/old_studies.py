"""Studies over a setting, each value a study of its own (learning_rate_0.003), -> tables for LOG.md and a figure."""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from matplotlib import pyplot
from matplotlib.figure import Figure

from memlayers.studies.figure import colour, saved
from memlayers.studies.report import markdown
from memlayers.studies.table import plateau, rows, t95
from memlayers.training.record import Record

Studies = dict[str, dict[str, list[Record]]]  # study -> world -> records


def by_settings(studies: Studies, name: str) -> dict[str, dict[tuple[str, ...], list[Record]]]:
    """world -> the settings behind a study's name -> records: robustness_0.003_5.0 has the settings 0.003 and 5.0."""
    found: dict[str, dict[tuple[str, ...], list[Record]]] = defaultdict(dict)
    for study, worlds in sorted(studies.items()):
        if study.startswith(f"{name}_"):
            for world, records in worlds.items():
                found[world][tuple(study.removeprefix(f"{name}_").split("_"))] = records
    return dict(sorted(found.items()))


def grid(corner: str, columns: list[str], lines: dict[str, list[str]]) -> str:
    """A table in markdown."""
    text = ["| " + " | ".join([corner, *columns]) + " |", "|" + " --- |" * (len(columns) + 1)]
    return "\n".join(text + ["| " + " | ".join([name, *cells]) + " |" for name, cells in lines.items()])


def world_tables(worlds: dict[str, list[Record]]) -> str:
    """The table of a study that has one, for each world."""
    return "\n\n".join(f"{world}:\n\n{markdown(rows(records))}" for world, records in sorted(worlds.items()))


def rate_tables(studies: Studies) -> str:
    """Recall of each arm by the rate of matrices under Muon (down) and of the rest (across); an arm's best in bold."""
    parts = []
    for world, found in by_settings(studies, "rates").items():
        recall: dict[str, dict[tuple[float, float], float]] = defaultdict(dict)  # arm -> (muon, or 0 without; rate)
        for (first, second), records in found.items():
            muon = 0.0 if first == "None" else float(first)
            for row in rows(records):
                recall[row.arm][muon, float(second)] = row.recall.mean
        rates = sorted({rate for own in recall.values() for _, rate in own})
        lines: dict[str, list[str]] = {}
        for arm, own in sorted(recall.items()):
            for muon in sorted({muon for muon, _ in own}):
                texts = [f"{own[muon, rate]:.3f}" if (muon, rate) in own else "-" for rate in rates]
                best = [own.get((muon, rate)) == max(own.values()) for rate in rates]
                name = f"{arm}, Muon {muon:g}" if muon else f"{arm}, AdamW"
                lines[name] = [f"**{text}**" if mark else text for text, mark in zip(texts, best, strict=True)]
        parts.append(f"{world}:\n\n" + grid("arm", [f"{rate:g}" for rate in rates], lines))
    return "\n\n".join(parts)


def robustness_tables(studies: Studies) -> str:
    """Recall at each rate (down) and rate of the values (across), and what it loses against the middle of both.

    The loss is over the seeds that both have.
    """
    parts = []
    for world, found in by_settings(studies, "robustness").items():
        recall = {
            (float(down), float(across)): {record["seed"]: record["recall"]["exact"] for record in own}
            for (down, across), own in found.items()
        }
        downs, acrosses = (sorted({pair[side] for pair in recall}) for side in (0, 1))
        middle = recall[downs[len(downs) // 2], acrosses[len(acrosses) // 2]]

        def cell(own: dict[int, float] | None, middle: dict[int, float] = middle) -> str:
            if own is None:
                return "-"
            text = f"{statistics.fmean(own.values()):.3f}"
            pairs = [(own[seed], middle[seed]) for seed in own if seed in middle]
            if own is not middle and pairs:
                change = sum(one for one, _ in pairs) / sum(other for _, other in pairs) - 1
                text += f" ({change:+.0%})"
            return f"{text}, n = {len(own)}"

        lines = {f"{down:g}": [cell(recall.get((down, across))) for across in acrosses] for down in downs}
        parts.append(f"{world}:\n\n" + grid("rate \\ rate of values", [f"{one:g}" for one in acrosses], lines))
    return "\n\n".join(parts)


class PowerLaw(NamedTuple):
    """y = factor * x ** exponent, by least squares in logarithms; half is half of the exponent's 95% t interval."""

    factor: float
    exponent: float
    half: float | None  # None for fewer than three points


def power_law(points: list[tuple[float, float]]) -> PowerLaw | None:
    """None where the points have a single x."""
    if len({x for x, _ in points}) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    line = statistics.linear_regression(xs, ys)
    half = None
    if len(points) > 2:
        rest = math.fsum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
        freedom = len(points) - 2
        half = t95(freedom) * math.sqrt(rest / freedom / (statistics.pvariance(xs) * len(xs)))
    return PowerLaw(math.exp(line.intercept), line.slope, half)


def plateaus(studies: Studies) -> dict[str, dict[str, dict[int, list[float | None]]]]:
    """World and spelling -> arm -> subjects -> exposures on the plateau, run by run; None for one that stayed there."""
    found: dict[str, dict[str, dict[int, list[float | None]]]] = {}
    for world, settings in by_settings(studies, "plateau").items():
        for (spelling, subjects), records in settings.items():
            arms = found.setdefault(f"{world}, {spelling}", defaultdict(lambda: defaultdict(list)))
            for record in records:
                arms[record["arm"]][int(subjects)].append(plateau(record))
    return found


def law_of(sizes: dict[int, list[float | None]]) -> PowerLaw | None:
    """Exposures on the plateau by the number of subjects, of the runs that left it."""
    return power_law([(size, one) for size, runs in sizes.items() for one in runs if one is not None])


def plateau_tables(studies: Studies) -> str:
    """Mean exposures on the plateau by arm and number of subjects, and the law fitted to its runs."""
    parts = []
    for title, arms in plateaus(studies).items():
        sizes = sorted({size for own in arms.values() for size in own})
        lines = {}
        for arm, own in sorted(arms.items()):
            law = law_of(own)
            half = "" if law is None or law.half is None else f" ± {law.half:.2f}"
            fitted = "-" if law is None else f"{law.factor:.3g} N^({law.exponent:.2f}{half})"
            lines[arm] = [stay(own.get(size, [])) for size in sizes] + [fitted]
        parts.append(
            f"{title}:\n\n" + grid("arm \\ subjects N", [f"{size:,}" for size in sizes] + ["exposures"], lines)
        )
    return "\n\n".join(parts)


def stay(runs: list[float | None]) -> str:
    """3.2 for runs that all left the plateau, 3.2 (2 of 3) where some did."""
    left = [one for one in runs if one is not None]
    if not left:
        return f"- (0 of {len(runs)})" if runs else "-"
    return f"{statistics.fmean(left):.2f}" + (f" ({len(left)} of {len(runs)})" if len(left) < len(runs) else "")


def draw_plateaus(studies: Studies, path: Path) -> list[Path]:
    """Exposures on the plateau against subjects, with fitted laws; a panel for each world and spelling."""
    found = plateaus(studies)
    if not found:
        return []

    def panels() -> Figure:
        figure, axes = pyplot.subplots(1, len(found), figsize=(3.6 * len(found), 3.2), squeeze=False, sharey=True)
        for (title, arms), panel in zip(found.items(), axes[0], strict=True):
            for arm, own in sorted(arms.items()):
                points = [(size, one) for size, runs in own.items() for one in runs if one is not None]
                panel.plot(
                    [size for size, _ in points], [one for _, one in points], "o", ms=4, color=colour(arm), label=arm
                )
                law, sizes = law_of(own), sorted(own)
                if law is not None:
                    panel.plot(sizes, [law.factor * size**law.exponent for size in sizes], lw=1, color=colour(arm))
            panel.set(xscale="log", yscale="log", xlabel="subjects")
            ticks = sorted({size for own in arms.values() for size in own})
            panel.set_xticks(ticks, [f"{size:,}" for size in ticks])
            panel.set_xticks([], minor=True)
            panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
        axes[0][0].set_ylabel("exposures on the plateau")
        axes[0][0].legend(fontsize=7, frameon=False)
        return figure

    return saved(panels, path)
