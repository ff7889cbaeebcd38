"""A Llama with one memory layer knows facts of a world and is taught new ones: what does each way of teaching forget?

python scripts/finetune.py --tune                   learning rates on a seed of their own, then seeds 0 to 2
python scripts/finetune.py                          with the rates of results/beyond_customisation/
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
from memlayers.foreign.teach import NEW, TARGET, pretrained, teach
from memlayers.studies.cli import fail, verb

FILE = Path(__file__).resolve().parent.parent / "results" / "beyond_customisation" / "biographies.json"
TUNING_SEED = 11
RATES = {
    "context": [0.0],
    "full": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    "lora": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "table": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
    "rows_500": [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],  # as many as in the paper's experiment on facts
    "rows_2000": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
}


def tuned(people: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    taught = pretrained(people, TUNING_SEED)
    found = []
    for arm, rates in RATES.items():
        for rate in rates:
            found.append(teach(arm, taught, rate))
            tell(f"{arm} {rate:g}: {found[-1]}")
    return found


def tried() -> list[dict[str, Any]]:
    """The trials of the committed file."""
    found = json.loads(FILE.read_text()).get("tuning", [])
    if missing := RATES.keys() - {run["arm"] for run in found}:
        raise ValueError(f"{FILE} has no rate for {', '.join(sorted(missing))}; accepted: --tune")
    return list(found)


def best_rates(tuning: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each arm: of those that reach the target, the one that forgets least; else what learns most."""
    by_arm = {arm: [run for run in tuning if run["arm"] == arm] for arm in RATES}
    best = {arm: max(runs, key=lambda run: (min(run["new"], TARGET), run["old"])) for arm, runs in by_arm.items()}
    return {arm: run["rate"] for arm, run in best.items()}


def main() -> int:
    from pandas import DataFrame

    from memlayers.studies.table import estimate, interval
    from memlayers.training.record import code_version, machine, write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--people", type=int, default=1050, help="of four facts each; the last 50 are new")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    console = Console(highlight=False, markup=False)
    try:
        at_least("--people", given.people, 100)
        within("--seeds", given.seeds, 1, TUNING_SEED)
        tuning = tuned(given.people, console.print) if given.tune else tried()
        rates, runs = best_rates(tuning), []
        for seed in range(given.seeds):
            taught = pretrained(given.people, seed)
            runs += [{"seed": seed} | teach(arm, taught, rate) for arm, rate in rates.items()]
        content = {
            "world": "biographies",
            "tuning": tuning,
            "runs": runs,
            "people": given.people,
            "new_facts": NEW,
            "target": TARGET,
        }
        write_json(given.out, content | {"code": code_version(), "machine": machine(torch.get_num_threads())})
    except (ValueError, OSError, ImportError) as error:
        fail(ValueError(error))
        return 2
    frame, table = DataFrame(runs), Table(box=None, pad_edge=False)
    for name in ("arm", "rate", "steps", "new", "forgotten"):
        table.add_column(name)
    for arm, own in frame.groupby("arm", sort=False):
        shown = [interval(estimate(name, own[name]), name) for name in ("steps", "new", "forgotten")]
        table.add_row(str(arm), f"{rates[str(arm)]:g}", *shown)
    console.print(table)
    return 0


if __name__ == "__main__":
    verb(main)
