"""Clients that hold different facts learn together: what does merging keep, what is sent, and what gets out?

python scripts/federated.py                              69 runs: dense and memory, in every way of memlayers/federated/
python scripts/federated.py --world biographies_prose --clients 4 --rounds 8,128      51 in prose, two minutes each
python scripts/federated.py --clients 4 --seeds 1 --people 300 --out elsewhere.json

Each run is written as it ends, and the same command goes on from there. More clients, rounds or seeds are added to
those that are there. Only `average` and `rows` are repeated with other numbers of rounds than the first. Arms have the
settings that were tuned for plain runs, whatever the number of clients.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from memlayers.checks import at_least, within
from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.federated import federate, laid_out, ways_of
from memlayers.studies.cli import jobs_from, verb
from memlayers.studies.federated import FEDERATED
from memlayers.studies.workers import keep_freed_memory
from memlayers.training.process import locked, threads
from memlayers.training.record import code_version, machine, write_json

RESULTS = Path(__file__).resolve().parent.parent / "results"
WORLDS = ("biographies", "biographies_prose")
ARMS = ("dense", "memory")
REPEATED = ("average", "rows")
SHOWN = ("own", "others", "before", "stranger_rows", "bytes")


def cells(clients: list[int], rounds: list[int], seeds: int) -> Iterator[dict[str, Any]]:
    """The runs to do, as {arm, way, clients, rounds, seed}, seed by seed."""
    for seed in range(seeds):
        for count in sorted({1, *clients}):
            for arm in ARMS:
                for way in ways_of(arm, count):
                    for times in rounds if way in REPEATED and count > 1 else rounds[:1]:
                        yield {"arm": arm, "way": way, "clients": count, "rounds": times, "seed": seed}


def configured(arm: str, seed: int, world: str, settings: dict[str, Any]) -> RunConfig:
    """The configuration of a plain run of this arm and seed."""
    words = [f"world.num_people={settings['people']}", f"training.exposures={settings['exposures']}"]
    jobs = jobs_from([f"arm={arm}", f"world={world}", f"seed={seed}", *words])
    assert jobs is not None and len(jobs) == 1
    return jobs[0]


def run(cell: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Do one run. Raises ValueError if runs of its arm in `found` have other settings."""
    settings = found["settings"]
    config = configured(cell["arm"], cell["seed"], found["world"], settings)
    there = {one["digest"] for one in found["runs"] if one["arm"] == cell["arm"]}
    if there - {digest(config)}:
        raise ValueError(
            f"{cell['arm']} has digest {digest(config)}, and {', '.join(sorted(there))} in runs that are there; "
            "accepted: the same settings, or another --out"
        )
    record = cell | {"digest": digest(config), "code": code_version(), "machine": machine(config.threads)}
    began = time.perf_counter()
    record |= federate(config, cell["way"], cell["clients"], cell["rounds"], settings["shared"])
    return record | {"seconds": time.perf_counter() - began}


def numbers(name: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name}={text}: not understood; accepted: numbers, as in 4,16") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default=WORLDS[0], choices=WORLDS)
    parser.add_argument("--clients", default="4,16", help="one client with all facts is added")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--people", type=int, default=800, help="of six facts each")
    parser.add_argument("--exposures", type=float, default=16, help="of each fact, over all clients")
    parser.add_argument("--rounds", default="8", help="or several numbers")
    parser.add_argument("--shared", type=float, default=0.2, help="share of people whose facts all clients hold")
    parser.add_argument("--out", type=Path, help="default: results/beyond_federated/WORLD.json")
    given = parser.parse_args()
    out = given.out or FEDERATED.path(RESULTS, given.world)
    settings = {name: getattr(given, name) for name in ("people", "exposures", "shared")}
    console = Console(highlight=False, markup=False)
    clients, rounds = numbers("clients", given.clients), numbers("rounds", given.rounds)
    for count in clients:
        at_least("--clients", count, 2)
    for name, count in (("seeds", given.seeds), ("rounds", min(rounds))):
        at_least(f"--{name}", count, 1)
    within("--shared", given.shared, 0, 1)
    for count in clients:  # whatever is wrong is said before any run begins
        laid_out(configured(ARMS[0], 0, given.world, settings), count, max(rounds), given.shared)
    keep_freed_memory()
    with locked(out), threads(1):
        fresh = {"world": given.world, "settings": settings, "runs": []}
        found = FEDERATED.resumed(out, fresh)
        for cell in cells(clients, rounds, given.seeds):
            if any(cell.items() <= one.items() for one in found["runs"]):
                continue
            found["runs"].append(run(cell, found))
            write_json(out, found, key="--out")
            last = {name: found["runs"][-1][name] for name in SHOWN}
            console.print(" ".join(f"{key}={value}" for key, value in cell.items()), end=": ")
            console.print(", ".join(f"{name} {value:.4g}" for name, value in last.items() if value is not None))
    print(out)
    return 0


if __name__ == "__main__":
    verb(main)
