"""The comparison in minutes: memory, a hashed table, dense and dense 4x on real facts, two seeds; table and figure.

./scripts/compare
./scripts/compare 'seed=range(5)' world=biographies
"""

import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from memlayers.config.digest import flatten
from memlayers.studies.cli import execute, jobs_from, verb
from memlayers.studies.figure import draw
from memlayers.studies.frame import framed, read_all
from memlayers.studies.table import screen, table, verdict
from memlayers.training.record import Record, finished, model_path, record_path

ROOT = Path(__file__).resolve().parent.parent
STUDY = ["experiment=frontier", "world=atlas_airports", "arm=dense,dense_4x,memory,ngram", "training.exposures=8"]
STUDY += ["seed=range(2)", "logger=none", "save_model=true"]


def show(overrides: list[str]) -> tuple[list[Path], list[Path]]:
    """Print the table and the committed one, and draw the figure; returns written files and saved memory models."""
    console = Console(width=None if Console().is_terminal else 150)
    written: list[Path] = []
    jobs = jobs_from(overrides) or []
    for folder in dict.fromkeys(record_path(job).parent for job in jobs):
        mine = [job for job in jobs if record_path(job).parent == folder]
        records = [record for job in mine if (record := finished(job)) is not None]
        if not records:
            continue
        study, world = mine[0].study, mine[0].world.name
        layout = asdict(mine[0].report) | {"frontier": False}  # of one budget
        rows = table(framed(records), layout)
        console.print(screen(f"\n{study}, {world}: these runs", rows, layout, console.width))
        console.print("\n" + verdict(rows, layout), highlight=False)
        digests = {record["digest"] for record in records}
        theirs = [record for record in read_all(ROOT / "results" / study) if record["digest"] in digests]
        if theirs:
            committed = table(framed(theirs), layout)
            console.print(screen("\nThe committed records", committed, layout, console.width))
            console.print(same_digits(records, theirs), highlight=False)
        written += [folder, *draw(framed(records), layout, folder / "figure")]
    return written, [model_path(job) for job in jobs if job.arm == "memory" and model_path(job).is_file()]


def agree(ours: Record, theirs: Record) -> bool:
    """Whether two blocks are equal in all read-outs that both have, as later code may have more."""
    here, there = flatten(ours), flatten(theirs)
    return all(here[key] == there[key] for key in here.keys() & there.keys())


def same_digits(mine: list[Record], theirs: list[Record]) -> str:
    """A sentence on how many runs equal the committed ones of the same configuration and seed."""
    known = {(record["digest"], record["seed"]): record for record in theirs}
    pairs = [(record, known[key]) for record in mine if (key := (record["digest"], record["seed"])) in known]
    if not pairs:
        return "None of these runs has a committed twin of the same configuration and seed."
    equal = sum(agree(own["recall"], other["recall"]) for own, other in pairs)
    text = f"{equal} of {len(pairs)} runs that have a committed twin agree with it in every digit of recall"
    if equal == len(pairs):
        return text + "."
    own, other = max(pairs, key=lambda pair: abs(pair[0]["recall"]["exact"] - pair[1]["recall"]["exact"]))
    text += f"; the furthest is {abs(own['recall']['exact'] - other['recall']['exact']):.3f} away."
    here, there = own["machine"], other["machine"]
    kinds = [key for key in ("processor", "instructions", "torch", "kernels", "threads") if key in there]
    differs = [f"{key} {here[key]} here, {there[key]} there" for key in kinds if here.get(key) != there[key]]
    return text + (f" Digits depend on the machine: {'; '.join(differs)}." if differs else "")


def main() -> int:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return 0
    flags = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    if flags:
        raise ValueError(f"{flags[0]} is not known here; accepted: key=value, or --help; train.py takes Hydra's flags")
    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    overrides = [line for line in STUDY if line.partition("=")[0] not in given] + sys.argv[1:]
    code = execute(overrides)
    if code == 2:
        return code
    written, memories = show(overrides)
    if written:
        print("\nwritten:", *(f"  {path}" for path in written), sep="\n")
    if memories:
        print(f"\nto ask what a memory learnt: python scripts/ask.py {memories[0]}")
    return code


if __name__ == "__main__":
    verb(main)
