"""A Llama with one memory layer knows facts of a world and is taught new ones: what does each way of teaching forget?

python scripts/finetune.py --tune                   learning rates on a seed of their own, then seeds 0 to 2
python scripts/finetune.py                          with the rates of results/beyond_customisation/
python scripts/finetune.py --world biographies_prose --tune             in prose, also asked in other words
python scripts/finetune.py --people 300 --seeds 1 --out elsewhere.json

The ways, context, full, lora, table and rows, are those of memlayers/foreign/teach.py. A rate is the best one that
reaches 95% of the new facts in tuning: the one that keeps most old facts. Needs pip install -e ".[hf]".
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from memlayers.checks import at_least, within
from memlayers.foreign.taught import NEW, pretrained
from memlayers.foreign.teach import TARGET, teach
from memlayers.studies.cli import fail, verb
from memlayers.studies.customised import CUSTOMISED

RESULTS = Path(__file__).resolve().parent.parent / "results"
PEOPLE = {"biographies": 1050, "biographies_prose": 350}
TUNING_SEED = 11
RATES = {
    "context": [0.0],
    "full": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    "lora": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "table": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
    "rows_500": [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],  # as many as in the paper's experiment on facts
    "rows_2000": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
}
OF_PROSE = 10  # times the rates of SGD: the loss is a mean over all tokens, of which few are answers


def tuned(world: str, people: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    taught = pretrained(world, people, TUNING_SEED)
    found = []
    for arm, rates in RATES.items():
        by_sgd = arm not in ("context", "full", "lora")
        for rate in rates:
            rate *= OF_PROSE if by_sgd and taught.text.style == "prose" else 1
            found.append(teach(arm, taught, rate))
            tell(f"{arm} {rate:g}: {found[-1]}")
    return found


def tried(world: str) -> list[dict[str, Any]]:
    """The trials of the committed file."""
    file = CUSTOMISED.path(RESULTS, world)
    found = json.loads(file.read_text())["tuning"] if file.is_file() else []
    if missing := RATES.keys() - {run["arm"] for run in found}:
        raise ValueError(f"{file} has no rate for {', '.join(sorted(missing))}; accepted: --tune")
    return list(found)


def best_rates(tuning: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each arm: of those that reach the target, the one that forgets least; else what learns most."""
    best = {}
    for arm in RATES:
        runs = [run for run in tuning if run["arm"] == arm]
        best[arm] = max(runs, key=lambda run: (min(run["new"], TARGET), -run["forgotten"]))
    return {arm: run["rate"] for arm, run in best.items()}


def main() -> int:
    from pandas import DataFrame

    from memlayers.studies.table import estimate, interval
    from memlayers.training.record import code_version, machine, write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--world", default="biographies", choices=list(PEOPLE))
    parser.add_argument("--people", type=int, help=f"the last {NEW} are new; default: 1050, in prose 350")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="default: results/beyond_customisation/WORLD.json")
    given = parser.parse_args()
    console, world = Console(highlight=False, markup=False), given.world
    people = PEOPLE[world] if given.people is None else given.people
    try:
        at_least("--people", people, 2 * NEW)
        within("--seeds", given.seeds, 1, TUNING_SEED)
        tuning = tuned(world, people, console.print) if given.tune else tried(world)
        rates, runs = best_rates(tuning), []
        for seed in range(given.seeds):
            taught = pretrained(world, people, seed)
            runs += [{"seed": seed} | teach(arm, taught, rate) for arm, rate in rates.items()]
        content = {"world": world, "people": people, "new_people": NEW, "target": TARGET}
        content |= {"tuning": tuning, "runs": runs, "code": code_version(), "machine": machine(torch.get_num_threads())}
        write_json(given.out or CUSTOMISED.path(RESULTS, world), content)
    except (ValueError, OSError, ImportError) as error:
        fail(ValueError(error))
        return 2
    frame, table = DataFrame(runs), Table(box=None, pad_edge=False)
    shown = ("steps", "new", "new_held_out", "forgotten")
    for name in ("arm", "rate", *shown):
        table.add_column(name)
    for arm, own in frame.groupby("arm", sort=False):
        cells = [interval(estimate(name, own[name].astype(float)), name) for name in shown]
        table.add_row(str(arm), f"{rates[str(arm)]:g}", *cells)
    console.print(table)
    return 0


if __name__ == "__main__":
    verb(main)
