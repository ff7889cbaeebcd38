"""Print what a world holds before any model: entropies, the commonest object's share, notes, and some of its text.

python scripts/show_world.py world=atlas_airports
python scripts/show_world.py world=triples world.path=facts.csv
"""

import sys

import torch
from rich.console import Console
from rich.table import Table

from memlayers.documents import Documents
from memlayers.facts import World
from memlayers.facts.world import PAD
from memlayers.studies.cli import jobs_from, verb
from memlayers.text import text_of


def statistics(world: World) -> Table:
    shown = Table(
        box=None, pad_edge=False, title=f"{world.name}: {len(world.subjects):,} subjects", title_justify="left"
    )
    for name in ("relation", "facts", "objects", "entropy in bits", "majority share"):
        shown.add_column(name, justify="left" if name == "relation" else "right")
    for row in world.statistics():
        numbers = (f"{row.num_facts:,}", f"{row.num_objects:,}", f"{row.entropy:.3f}", f"{row.majority:.3f}")
        shown.add_row(row.name, *numbers)
    return shown


def lines(documents: Documents, vocabulary: tuple[str, ...]) -> list[str]:
    """The text of documents, with answers between asterisks."""
    return [
        " ".join(
            f"*{vocabulary[token]}*" if is_answer else vocabulary[token]
            for token, is_answer in zip(row.tolist(), answers.tolist(), strict=True)
            if token != PAD
        )
        for row, answers in zip(documents.tokens, documents.answers, strict=True)
    ]


def main() -> int:
    jobs = jobs_from(sys.argv[1:])
    if jobs is None:
        print(__doc__)
        return 0
    if len({str(job.world) for job in jobs}) > 1:
        raise ValueError(f"{' '.join(sys.argv[1:])}: several worlds; accepted: one")
    text = text_of(jobs[0].world)
    world = text.world
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(statistics(world))
    console.print(f"sum of entropies {sum(one.entropy for one in world.statistics()):.2f} bits a subject at most")
    console.print(f"joint entropy {world.joint_entropy():.2f} bits a subject (plug-in: at most log2 of the subjects)")
    console.print(f"{len(text.vocabulary):,} tokens; {len(world.unknown):,} unknown subjects to ask about")
    for note in world.notes:
        console.print(f"note: {note}")
    console.print("\ntraining documents, answers between asterisks:")
    for line in lines(text.sample(4, torch.Generator().manual_seed(0)), text.vocabulary):
        console.print(f"  {line}")
    return 0


if __name__ == "__main__":
    verb(main)
