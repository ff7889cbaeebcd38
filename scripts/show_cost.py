"""Print what every arm of a study costs, and every way of spending more compute on a dense model, without training.

python scripts/show_cost.py experiment=frontier world=biographies
"""

import dataclasses
import sys

from rich.console import Console
from rich.table import Table

from memlayers.config import RunConfig
from memlayers.layers import Dense
from memlayers.studies.cli import fail, jobs_from, verb
from memlayers.training.plan import Plan, plan

COLUMNS = ("arm", "d_model", "depth", "hidden", "steps", "forward", "backward", "training FLOPs/token", "of target")
COLUMNS += ("training FLOPs", "bytes read/token", "params")


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
    """Dense at 1x to 8x by width, hidden width, depth and longer training, and at equal parameters."""
    model = dataclasses.replace(config.model, ffn=Dense())
    made = []
    for spend in ("width", "hidden", "depth", "longer"):
        for times in (1.0, 2.0, 4.0, 8.0):
            match = dataclasses.replace(config.match, by="flops", times=times, spend=spend)
            made.append(dataclasses.replace(config, arm=f"dense {times:.0f}x by {spend}", model=model, match=match))
    for spend in ("width", "hidden", "depth"):
        match = dataclasses.replace(config.match, by="params", times=1.0, spend=spend)
        made.append(dataclasses.replace(config, arm=f"dense equal params by {spend}", model=model, match=match))
    return made


def main() -> int:
    try:
        jobs = jobs_from(sys.argv[1:])
        if jobs is None:
            print(__doc__)
            return 0
        arms = list({job.arm: job for job in jobs}.values())
        if arms and arms[0].match.reference is not None:
            arms += ways_to_spend(arms[0])
        table = Table(*COLUMNS, box=None, pad_edge=False, title=f"{arms[0].study}, {arms[0].world.name}")
        for column in table.columns[1:]:
            column.justify = "right"
        for arm in arms:
            table.add_row(*line(arm.arm, plan(arm)))
    except ValueError as error:
        fail(error)
        return 2
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
    return 0


if __name__ == "__main__":
    verb(main)
