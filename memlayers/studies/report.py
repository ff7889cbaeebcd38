"""Rows -> words: the markdown table, the sentence of the finding, and the README between its markers."""

import re
from collections import defaultdict
from pathlib import Path

from rich.table import Table

from memlayers.config.run import apart, flatten
from memlayers.studies.table import Estimate, Row, multiplier
from memlayers.training.record import Record

HEAD = ("arm", "recall", "held out", "vs dense", "plateau", "bits/param", "kFLOPs/token", "params", "seconds", "n")
NARROW = 120  # columns: below, a table in one line a row would be cut off


def interval(value: Estimate | None, signed: bool = False) -> str:
    """0.81 [0.79, 0.83]"""
    if value is None:
        return "-"
    sign = "+" if signed else ""
    text = f"{value.mean:{sign}.3f}"
    return text if value.low is None else f"{text} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table as text, in the order of HEAD."""
    return (
        row.arm,
        interval(row.recall),
        interval(row.held_out),
        interval(row.difference, signed=True) if row.difference else "reference" if row.arm == "dense" else "-",
        passed(row),
        f"{row.bits_per_parameter.mean:.3f}",
        f"{row.flops_per_token / 1e3:,.0f}",
        f"{row.parameters / 1e3:,.0f}k",
        f"{row.seconds:,.0f}",
        str(row.n),
    )


def passed(row: Row) -> str:
    """Exposures until recall passed the plateau; of fewer seeds than there are, 12.3 (2 of 5)."""
    if row.plateau is None:
        return "-"
    return f"{row.plateau.mean:.1f}" + (f" ({row.plateau.n} of {row.n})" if row.plateau.n < row.n else "")


def markdown(table: list[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    return "\n".join(lines + ["| " + " | ".join(cells(row)) + " |" for row in table])


def screen(title: str, table: list[Row], width: int) -> Table:
    """The same for a terminal; in a narrow one intervals stand below their means."""
    narrow = width < NARROW
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    body = [cells(row) for row in table]
    empty = [name for column, name in enumerate(HEAD) if all(line[column] == "-" for line in body)]
    for name in HEAD:
        if name not in empty:
            shown.add_column(name.replace("/", "/\n") if narrow else name, justify="left" if name == "arm" else "right")
    for line in body:
        kept = [cell for name, cell in zip(HEAD, line, strict=True) if name not in empty]
        shown.add_row(*(cell.replace(" [", "\n[") if narrow else cell for cell in kept))
    return shown


def told_apart(records: list[Record]) -> list[Record]:
    """The same; where an arm has several configurations, each is an arm of its own, named by what differs.

    No arm is compared with dense where dense has several.
    """
    arms: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        arms[record["arm"]].append(record)
    named = []
    for arm, members in arms.items():
        for member, own in zip(members, apart([flatten(member["config"]) for member in members]), strict=True):
            named.append(member | {"arm": f"{arm} {own}".rstrip()})
    return named


def finding(world: str, table: list[Row]) -> str:
    """The sentence that states what the table shows, whichever way it went."""
    by_arm = {row.arm: row for row in table}
    memories = [row for row in table if not row.arm.startswith("dense")]
    if "dense" not in by_arm or not memories:
        return f"On {world} there is no memory arm beside a dense one yet."
    best, dense = max(memories, key=lambda row: row.recall.mean), by_arm["dense"]
    times = f": {best.recall.mean / dense.recall.mean:.1f} times as many" if dense.recall.mean > 0 else ""
    apart = best.difference
    if apart is not None and apart.low is not None and apart.high is not None and apart.low <= 0 <= apart.high:
        times = ", no clear difference"
    text = (
        f"On {world}, at equal training FLOPs per token and equal tokens, {best.arm} recalls {best.recall.mean:.3f} of "
        f"the facts and dense {dense.recall.mean:.3f}{times} (n = {min(best.n, dense.n)} seeds"
    )
    if best.difference is not None and best.difference.low is not None:
        text += f", difference {interval(best.difference, signed=True)}"
        if best.difference.n < min(best.n, dense.n):
            text += f" over the {best.difference.n} that both have"
    text += ")."
    if "dense_4x" in by_arm:
        four = by_arm["dense_4x"].recall.mean
        text += f" Dense with four times the FLOPs recalls {four:.3f}"
        found = multiplier(table, best)
        if found is not None:
            multiple, reached = found
            cheapest = min((row for row in table if row.arm.startswith("dense")), key=lambda row: row.training_flops)
            at_most = "at most " if cheapest.recall.mean >= best.recall.mean else ""
            text += (
                f"; the compute multiplier of {best.arm} is {at_most}{multiple:.1f}"
                if reached
                else f"; no dense arm reaches {best.arm}, so its compute multiplier is more than {multiple:.1f}"
            )
        text += "."
    if "dense_params" in by_arm:
        equal = by_arm["dense_params"]
        more = equal.flops_per_token / best.flops_per_token
        text += f" Dense with as many stored parameters, at {more:.1f} times the FLOPs,"
        text += f" recalls {equal.recall.mean:.3f}."
    return text


def replace_section(text: str, name: str, content: str) -> str:
    """The text with what stands between <!-- name --> and <!-- /name --> replaced; ValueError without markers."""
    pattern = re.compile(rf"(<!-- {name} -->\n)(?:.*?\n)??(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the text has no markers <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda match: match[1] + content + "\n" + match[2], text)


def readme_section(worlds: dict[str, list[Row]]) -> str:
    """All worlds of a study: a sentence and a table each."""
    return "\n\n".join(f"**{world}.** {finding(world, table)}\n\n{markdown(table)}" for world, table in worlds.items())


def update(path: Path, name: str, content: str) -> None:
    """Rewrite one generated section of a file."""
    path.write_text(replace_section(path.read_text(), name, content))
