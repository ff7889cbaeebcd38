"""Kill, damage and fuzz: writes results/reliability.json, and RELIABILITY.md from it.

python scripts/reliability.py                         all: an hour on two cores
python scripts/reliability.py --minutes 1 --cases 50 --out elsewhere
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))  # what is beside this file

HEAD = """# Reliability

Written by `python scripts/reliability.py`, on {machine}, from `results/reliability.json`. A case counts as
survived if no computed result is lost and no digit changes: a killed sweep is restarted by the same command until it
has all its records, which are compared with those of an undisturbed sweep; a damaged record is refused in one line, or
has the same content; a damaged file of facts or a random configuration is refused in one line, or accepted for what it
now says.

"""


def page(found: list[dict[str, Any]], machine: str) -> str:
    from pandas import DataFrame

    return HEAD.format(machine=machine) + DataFrame(found).to_markdown(index=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind that is fuzzed")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder of RELIABILITY.md and results/reliability.json")
    parser.add_argument("--steps", type=int, default=600, help="of each run of the soak")
    given = parser.parse_args()
    from faults import fuzz, kills

    from memlayers.training.provenance import machine

    few = max(1, given.cases // 50)
    parts = [
        lambda: fuzz.files(given.cases),
        lambda: [fuzz.records(given.cases), fuzz.configurations(given.cases)],
        lambda: kills.damaged_checkpoints(few),
        lambda: kills.surroundings(max(1, few // 4)),
        lambda: kills.soak(given.minutes, given.steps),
    ]
    found: list[dict[str, Any]] = []
    for part in parts:
        for one in part():
            found.append(one)
            print(f"{one['name']}: {one['survived']} of {one['tried']} survived, {one['lost']} lost", flush=True)
    (given.out / "results").mkdir(parents=True, exist_ok=True)
    (given.out / "results" / "reliability.json").write_text(json.dumps(found, indent=1) + "\n")
    (given.out / "RELIABILITY.md").write_text(page(found, machine(1)["processor"]))
    return int(any(one["lost"] for one in found))


if __name__ == "__main__":
    from memlayers.studies.cli import verb

    verb(main)
