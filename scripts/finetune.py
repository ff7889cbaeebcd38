"""A Llama with one memory layer knows facts of a world and is taught new ones: what does each way of teaching forget?

python scripts/finetune.py                                  learning rates on a seed of their own, then seeds 0 to 2
python scripts/finetune.py --world biographies_prose        in prose, also asked in words that training never uses
python scripts/finetune.py --people 300 --seeds 1 --out elsewhere.json

The ways, context, full, lora, table and rows, are those of memlayers/foreign/teach.py. The rate of a way is the one
that forgets least of those that reach 95% of the new facts in tuning, or learns most where none does. Each trial and
run is written as it ends, and the same command goes on from there. Needs pip install -e ".[hf]".
"""

import argparse
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from memlayers.checks import at_least
from memlayers.foreign.taught import NEW, Taught, pretrained
from memlayers.foreign.teach import MOST, TARGET, teach
from memlayers.studies.cli import verb
from memlayers.studies.customised import CUSTOMISED
from memlayers.training.process import locked, threads
from memlayers.training.record import code_version, machine, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
PEOPLE = {"biographies": 1050, "biographies_prose": 250}
TUNING_SEED = 11
RATES = {
    "context": [0.0],
    "full": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    "lora": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "table": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
    "rows_500": [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],  # as many as in the paper's experiment on facts
    "rows_2000": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
}
BY_SGD = ("table", "rows_500", "rows_2000")
OF_PROSE = 100  # times the rates of SGD: the loss is a mean over all tokens, of which few are answers
SHOWN = ("steps", "new", "new_held_out", "forgotten", "forgotten_held_out")


def rates_of(world: str) -> dict[str, list[float]]:
    """The rates that are tried, by way."""
    scale = OF_PROSE if world == "biographies_prose" else 1
    return {way: [rate * (scale if way in BY_SGD else 1) for rate in rates] for way, rates in RATES.items()}


def best_rates(tuning: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each way: of those that reach the target, the one that forgets least; else what learns most."""
    best = {}
    for way in RATES:
        runs = [run for run in tuning if run["arm"] == way]
        best[way] = max(runs, key=lambda run: (min(run["new"], TARGET), -run["forgotten"]))
    return {way: run["rate"] for way, run in best.items()}


def measure(found: dict[str, Any], seeds: int, out: Path, console: Console) -> None:
    """Do the trials, and then the runs, that `found` lacks, and write it after each."""
    world, people = found["world"], found["settings"]["people"]

    @lru_cache(maxsize=1)
    def model_of(seed: int) -> Taught:
        return pretrained(world, people, seed)

    def done(kind: str, seed: int, way: str, rate: float) -> None:
        record = {"arm": way, "rate": rate, "seed": seed} | teach(way, model_of(seed), rate)
        found[kind].append(record | {"code": code_version(), "machine": machine(1)})
        write_json(out, found, key="--out")
        numbers = ", ".join(f"{name} {record[name]:.4g}" for name in SHOWN if record[name] is not None)
        console.print(f"seed {seed}, {way} at {rate:g}: {numbers}")

    grid = [(way, rate) for way, rates in rates_of(world).items() for rate in rates]
    tried = {(one["arm"], one["rate"]) for one in found["tuning"]}
    for way, rate in grid:
        if (way, rate) not in tried:
            done("tuning", TUNING_SEED, way, rate)
    best = best_rates([one for one in found["tuning"] if (one["arm"], one["rate"]) in grid])
    there = {(one["seed"], one["arm"]): one["rate"] for one in found["runs"]}
    for seed in range(seeds):
        for way, rate in best.items():
            if (seed, way) not in there:
                done("runs", seed, way, rate)
            elif there[seed, way] != rate:
                runs = f"{out} has a run of {way} at a rate of {there[seed, way]:g}, and the best is now {rate:g}"
                raise ValueError(f"{runs}; accepted: another --out")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="biographies", choices=list(PEOPLE))
    parser.add_argument("--people", type=int, help=f"the last {NEW} are new; default: 1050, in prose 250")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="default: results/beyond_customisation/WORLD.json")
    given = parser.parse_args()
    people = PEOPLE[given.world] if given.people is None else given.people
    settings = {"people": people, "target": TARGET, "most_steps": MOST}
    out = given.out or CUSTOMISED.path(RESULTS, given.world)
    try:
        at_least("--people", people, 2 * NEW)
        at_least("--seeds", given.seeds, 1)
        if given.seeds > TUNING_SEED:
            raise ValueError(f"--seeds={given.seeds}: seed {TUNING_SEED} is for tuning; accepted: up to {TUNING_SEED}")
        with locked(out), threads(1):
            fresh = {"world": given.world, "settings": settings, "tuning": [], "runs": []}
            found = CUSTOMISED.resumed(out, fresh)
            measure(found, given.seeds, out, Console(highlight=False, markup=False))
    except ImportError as error:
        raise ValueError(f'finetune needs transformers ({error}); accepted: pip install "memlayers[hf]"') from None
    print(out)
    return 0


if __name__ == "__main__":
    verb(main)
