"""Print what every arm of a study costs, and every way of spending more compute on a dense model, without training.

python scripts/show_cost.py experiment=frontier world=biographies
python scripts/show_cost.py --processes 2,4,8 arm=memory             # sharded tables: what each process holds and sends
"""

import dataclasses
import sys

from rich.console import Console
from rich.table import Table

from memlayers.config import RunConfig
from memlayers.layers import Dense
from memlayers.shares import share_of
from memlayers.studies.cli import jobs_from, verb
from memlayers.training.plan import Plan, plan

COLUMNS = ("arm", "d_model", "depth", "hidden", "steps", "forward", "backward", "training FLOPs/token", "of target")
COLUMNS += ("training FLOPs", "bytes read/token", "params")
NARROW = 150  # columns of a terminal: below, what a model is and what it costs stand under each other
HALVES = ((0, 1, 2, 3, 4, 8, 11), (0, 5, 6, 7, 9, 10))


def line(name: str, chosen: Plan) -> tuple[str, ...]:
    model, cost = chosen.matched.model, chosen.matched.cost
    numbers = (model.d_model, model.depth, model.hidden, chosen.steps)
    return (
        name,
        *(str(number) for number in numbers),
        f"{cost.forward:,.0f}",
        f"{cost.backward:,.0f}",
        f"{cost.flops:,.0f}",
        f"{chosen.matched.reached / chosen.matched.target:.4f}",
        f"{cost.flops * chosen.tokens:.3g}",
        f"{cost.bytes_read:,.0f}",
        f"{cost.params:,}",
    )


def ways_to_spend(config: RunConfig) -> list[RunConfig]:
    """Configurations of dense models with 1x to 8x the FLOPs, by width, hidden, depth and longer training, and with
    equal parameters.
    """
    model = dataclasses.replace(config.model, ffn=Dense())
    configs = []
    for spend in ("width", "hidden", "depth", "longer"):
        for times in (1.0, 2.0, 4.0, 8.0):
            match = dataclasses.replace(config.match, by="flops", times=times, spend=spend)
            configs.append(dataclasses.replace(config, arm=f"dense {times:.0f}x by {spend}", model=model, match=match))
    for spend in ("width", "hidden", "depth"):
        match = dataclasses.replace(config.match, by="params", times=1.0, spend=spend)
        configs.append(dataclasses.replace(config, arm=f"dense equal params by {spend}", model=model, match=match))
    return configs


def shares(arms: list[RunConfig], processes: list[int]) -> Table:
    columns = ("arm", "processes", "tables, MB", "their state, MB", "all else, MB", "sent a step, MB")
    table = Table(*columns, box=None, pad_edge=False, title="a process, with trainer=ddp shard_tables=true")
    for arm in arms:
        chosen, rule = plan(arm), arm.optim.values
        for count in processes if rule is not None else ():
            model, words = chosen.matched.model, len(chosen.text.vocabulary)
            share = share_of(model, words, chosen.work, rule, count, chosen.text.questions())
            table.add_row(arm.arm, str(count), *(f"{size / 1e6:,.3f}" for size in dataclasses.astuple(share)))
    return table


def processes_of(words: list[str]) -> list[int]:
    """Remove --processes from `words`; returns its numbers, [] without it. Raises ValueError for other values."""
    if "--processes" not in words:
        return []
    place = words.index("--processes")
    value = "".join(words[place + 1 : place + 2])
    del words[place : place + 2]
    if not all(word.isdecimal() and int(word) for word in value.split(",")):
        raise ValueError(f"--processes {value}: not numbers of processes; accepted: such as 2,4,8")
    return [int(word) for word in value.split(",")]


def main() -> int:
    words = sys.argv[1:]
    processes = processes_of(words)
    jobs = jobs_from(words)
    if jobs is None:
        print(__doc__)
        return 0
    arms = list({job.arm: job for job in jobs}.values())
    if arms and not processes and arms[0].match.reference is not None:
        arms += ways_to_spend(arms[0])
    if processes:
        show(shares(arms, processes))
        return 0
    rows = [line(arm.arm, plan(arm)) for arm in arms]
    title = f"{arms[0].study}, {arms[0].world.name}"
    for which in HALVES if on_screen().width < NARROW else (range(len(COLUMNS)),):
        table = Table(box=None, pad_edge=False, title=title)
        for place in which:
            table.add_column(COLUMNS[place], justify="right" if place else "left", overflow="fold")
        for row in rows:
            table.add_row(*(row[place] for place in which))
        show(table)
    return 0


def on_screen() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)


def show(table: Table) -> None:
    on_screen().print(table)


if __name__ == "__main__":
    verb(main)
