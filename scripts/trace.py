"""Look into one lookup of a model that a run kept (save_model=true): slots, weights, who else reads them.

python scripts/trace.py RUN "JFK" country                     a table; then, without these slots
python scripts/trace.py RUN "JFK" country --figure reads.png  where they lie among all slots
python scripts/trace.py RUN --measure 200                     forget and edit 200 facts: how many others are lost
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

import memlayers
from memlayers import tracing
from memlayers.checks import at_least
from memlayers.studies.cli import verb
from memlayers.studies.files import settings_in


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("subject", nargs="?")
    parser.add_argument("relation", nargs="?")
    parser.add_argument(
        "--phrasing", default="training", help="training, held_out, questions, held_out_questions; or a kind of view"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE")
    parser.add_argument("--measure", type=int, metavar="FACTS")
    parser.add_argument("--layer", action="append", default=[], metavar="FILE", help="of an arm of your own")
    given = parser.parse_intermixed_args()
    console = Console(highlight=False, markup=False)
    model = memlayers.load(given.run, tuple(settings_in(Path(file).resolve()) for file in given.layer))
    if given.measure is not None:
        at_least("--measure", given.measure, 1)
        if given.subject is not None or given.figure is not None:
            raise ValueError(f"{given.subject or given.figure} has no effect; accepted: RUN --measure FACTS alone")
        print(json.dumps({"run": Path(given.run).stem} | tracing.measured(model, given.measure), indent=1))
        return 0
    if given.relation is None:
        raise ValueError("no question; accepted: RUN SUBJECT RELATION, or RUN --measure FACTS")
    reads = tracing.trace(model, given.subject, given.relation, given.phrasing)
    if given.figure is not None:
        from memlayers.studies.trace_figure import draw

        draw(model, reads, f"{given.subject}, {given.relation}", given.figure)
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "slot", "weight", "heads", "other facts"):
        table.add_column(name, justify="right" if name in ("slot", "weight", "other facts") else "left")
    table.add_column("such as", no_wrap=True, max_width=max(console.width - 48, 24))  # a line a slot
    for read in reads:
        heads = " ".join(map(str, read.heads))
        known_to = ", ".join(read.known_to)
        table.add_row(read.place, f"{read.slot}", f"{read.weight:.3f}", heads, f"{read.readers}", known_to)
    console.print(table)
    fact = model.fact(given.subject, given.relation)
    changed = tracing.copied(model)
    count = tracing.forget(changed, fact)
    console.print(f"as it is:               {model.ask(given.subject, given.relation, 3, given.phrasing)}")
    console.print(f"without its {count:4} slots: {changed.ask(given.subject, given.relation, 3, given.phrasing)}")
    return 0


if __name__ == "__main__":
    verb(main)
