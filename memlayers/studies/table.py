"""The one table: a row for each combination of axes, with n, means, 95% intervals and the paired difference."""

import math
from collections.abc import Sequence
from statistics import median_high
from typing import Any

import pandas
from rich.table import Table as Screen
from scipy import stats

from memlayers.studies.frame import axes_of, is_share, label, refuse_unknown, texts, with_missing

NARROW = 120  # columns of a terminal: below, intervals stand on a line of their own
INDEX = ("study", "world")
ON_PAPER = (
    *("right_at_1", "right_at_5", "shuffled", "without_tables", "slots_used", "slots_kl"),
    *("training_flops", "training_flops_with_teacher"),
)


def table(frame: pandas.DataFrame, layout: dict[str, Any]) -> pandas.DataFrame:
    """Columns: study, world, axes; n, runs that ended well, and `runs`, all that were made, or as many as half of the
    cells of that world have; READOUT, READOUT_low, READOUT_high of each read-out; difference, _low, _high of
    layout["y"] over `pairs` seeds to the reference of the same world and other axes.

    Intervals are Student's t over seeds, NaN for a single one; seconds is a median. Reference rows come first, then
    the others by numeric axes and lists of numbers, training FLOPs to a fifth, and layout["y"], the best first.
    """
    known = {label(name): name for kind in ("config.", "axes.", "arm") for name in frame if name.startswith(kind)}
    frame = with_missing(frame, layout["rows"], [*layout["readouts"], layout["y"]], known)
    for place in ("x", "columns"):
        refuse_unknown(place, [one for one in [layout[place]] if one], {*known, *frame})
    axes = axes_of(frame, [known.get(axis, axis) for axis in layout["rows"]])
    frame = frame.assign(**{label(axis): texts(frame[axis]) for axis in axes})
    keys = [*INDEX, *map(label, axes)]
    cells = {key: cell.set_index("seed").sort_index() for key, cell in frame.groupby(keys, sort=False)}
    sizes: dict[Any, list[int]] = {}
    for key, cell in cells.items():
        sizes.setdefault(key[:2], []).append(len(cell))
    reference = {axis: text(value) for axis, value in layout["reference"].items() if axis in keys}
    rows = []
    for key, cell in cells.items():
        named = dict(zip(keys, key, strict=True))
        base = base_of(named, reference, cells, keys)
        ok = cell[cell["status"] == "ok"]
        row = named | {"n": len(ok), "runs": max(len(cell), median_high(sizes[key[:2]]))}
        for name in dict.fromkeys([*layout["readouts"], layout["y"]]):
            row |= estimate(name, ok[name], is_median=name == "seconds")
        is_base = bool(reference) and named | reference == named
        y = layout["y"]
        paired = pandas.Series(dtype=float) if base is None or is_base else (ok[y] - base[y]).dropna()
        row |= estimate("difference", paired) | {"pairs": len(paired), "reference": is_base}
        order = [first_number(named[axis]) for axis in keys[2:]]
        cost, best = ok["training_flops"].mean(), ok[y].mean()
        places = (math.inf, 0.0) if math.isnan(cost) else (round(4 * math.log2(cost)), -best if best == best else 0.0)
        rows.append((named["study"], named["world"], not is_base, order, places, key, row))
    return pandas.DataFrame([row for *_, row in sorted(rows, key=lambda one: one[:-1])])


def base_of(
    named: dict[str, str], reference: dict[str, str], cells: dict[Any, pandas.DataFrame], keys: list[str]
) -> pandas.DataFrame | None:
    """The reference's runs that a cell is compared with: of the same study and world, and alike in all other axes; or
    else in those in which the reference's own cells differ and the cell has a value. None where there are several.
    """
    candidates = [dict(zip(keys, key, strict=True)) for key in cells]
    candidates = [one for one in candidates if one | reference == one and all(one[key] == named[key] for key in INDEX)]
    alike = [one for one in candidates if one == named | reference]
    differ = [axis for axis in keys if len({one[axis] for one in candidates}) > 1 and named[axis] != "-"]
    candidates = alike or [one for one in candidates if all(one[axis] == named[axis] for axis in differ)]
    return cells[tuple(candidates[0].values())] if reference and len(candidates) == 1 else None


def text(value: Any) -> str:
    return str(texts(pandas.Series([value], dtype=object)).iloc[0])


def first_number(value: str) -> float:
    """For an order: of a list its first number, and of a word zero."""
    first = value.strip("[]").partition(",")[0]
    return float(first) if is_number(first) else 0.0


def is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def axes_in(rows: pandas.DataFrame) -> list[str]:
    """The axes of a table: its columns before n, but for study and world."""
    return [name for name in rows.columns[: list(rows.columns).index("n")] if name not in INDEX]


def estimate(name: str, values: pandas.Series, is_median: bool = False) -> dict[str, float]:
    """Mean and 95% t interval of the values that are there; that of a share ends at 0 and 1."""
    values = values.dropna()
    mean = values.median() if is_median else values.mean()
    low = high = math.nan
    if len(values) > 1 and not is_median:
        half = stats.t.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values))
        low, high = mean - half, mean + half
        if is_share(name):
            low, high = max(low, 0.0), min(high, 1.0)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def interval(row: Any, name: str) -> str:
    """0.812 [0.800, 0.824]; large numbers, and those without spread, as one number; a dash for nothing."""
    mean, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if math.isnan(mean):
        return "-"
    sign, form = ("+" if name == "difference" else ""), ",.0f" if abs(mean) >= 100 else ".3f"
    if math.isnan(low) or form == ",.0f" or math.isclose(low, high):
        return f"{mean:{sign}{form}}"
    return f"{mean:{sign}{form}} [{low:{sign}{form}}, {high:{sign}{form}}]"


def shown(rows: pandas.DataFrame, layout: dict[str, Any]) -> pandas.DataFrame:
    """The table as text; read-outs that no row has are left out, and study and world where there is one."""
    axes = axes_in(rows)
    columns = {name: rows[name] for name in INDEX if rows[name].nunique() > 1} | {axis: rows[axis] for axis in axes}
    for name in dict.fromkeys((layout["y"], "difference", *layout["readouts"])):
        if name in rows and rows[name].notna().any():
            columns[name] = pandas.Series([interval(row, name) for _, row in rows.iterrows()], index=rows.index)
    if "difference" in columns:
        columns["difference"] = columns["difference"].where(~rows["reference"], "reference")
    columns["n"] = [f"{n}" if n == runs else f"{n} of {runs}" for n, runs in zip(rows["n"], rows["runs"], strict=True)]
    return pandas.DataFrame(columns)


def pivot(rows: pandas.DataFrame, across: str, readout: str) -> pandas.DataFrame:
    """One read-out as text, the values of an axis side by side."""
    axes = [name for name in ("world", *axes_in(rows)) if name != across]
    down = [name for name in axes if rows[name].nunique() > 1] or axes[:1]
    cells = rows.assign(cell=[f"{interval(row, readout)}, n = {row['n']}" for _, row in rows.iterrows()])
    wide = cells.pivot_table(index=down, columns=across, values="cell", aggfunc="first", sort=False).fillna("-")
    return wide[sorted(wide.columns, key=first_number)].reset_index()


def markdown(rows: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """The table, and where the layout has columns, its read-out y side by side before it."""
    parts = [shown(rows, layout)]
    if layout["columns"] in rows:
        parts.insert(0, pivot(rows, layout["columns"], layout["y"]))
    return "\n\n".join(map(as_markdown, parts))


def as_markdown(texts: pandas.DataFrame) -> str:
    return str(texts.to_markdown(index=False, disable_numparse=True))


def screen(title: str, rows: pandas.DataFrame, layout: dict[str, Any], width: int) -> Screen:
    """The same for a terminal, without the read-outs that are ON_PAPER only."""
    readouts = [name for name in layout["readouts"] if name not in ON_PAPER]
    narrow, body = width < NARROW, shown(rows, layout | {"readouts": readouts})
    made = Screen(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    for name in body:
        made.add_column(str(name).replace("_", "\n" if narrow else " "), overflow="fold")
    for line in body.itertuples(index=False):
        made.add_row(*(str(cell).replace(" [", "\n[") if narrow else str(cell) for cell in line))
    return made


def verdict(rows: pandas.DataFrame, layout: dict[str, Any]) -> str:
    """A sentence a world: the best row that differs from the reference, with the paired difference."""
    axes, y, sentences = axes_in(rows), layout["y"], []
    name = "recall" if y == "recalled" else y
    for world, found in rows.groupby("world", sort=False):
        others = found[found["difference"].notna()]
        others = others[others["difference"] != 0] if others["difference"].any() else others
        if others.empty:
            sentences.append(f"On {world} nothing stands beside a reference yet.")
            continue
        best = others.loc[others[y].idxmax()]
        bases = found[found["reference"]]
        differ = [axis for axis in axes if axis not in layout["reference"] and bases[axis].nunique() > 1]
        base = bases[same(bases, best, differ)]
        names = [axis for axis in axes if axis in layout["reference"] or rows[axis].nunique() > 1]
        clear = not best["difference_low"] <= 0 <= best["difference_high"]
        tail = "" if clear or math.isnan(best["difference_low"]) else ", no clear difference"
        sentences.append(
            f"On {world}, {name} is {interval(best, y)} for {naming(best, names)} and {interval(base.iloc[0], y)} for "
            f"{naming(base.iloc[0], names)}: {interval(best, 'difference')} over {best['pairs']} paired seeds{tail}."
        )
    return " ".join(sentences)


def same(rows: pandas.DataFrame, one: Any, axes: Sequence[str]) -> pandas.Series:
    alike = pandas.Series(True, index=rows.index)
    for axis in axes:
        alike &= rows[axis] == one[axis]
    return alike


def naming(row: Any, axes: Sequence[str]) -> str:
    """memory; or memory, model.ffn.topk = 8."""
    return ", ".join(str(row[axis]) if axis == "arm" else f"{axis} = {row[axis]}" for axis in axes)
