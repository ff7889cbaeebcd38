"""Tables of records.

python scripts/report.py                        # redraw all that is drawn from the committed ones: README, LOG, figures
python scripts/report.py results/local/single   # show those below this folder, your own; nothing is written
"""

import sys
from pathlib import Path

from rich.console import Console

from memlayers import speed
from memlayers.studies.cli import fail, verb
from memlayers.studies.figure import draw
from memlayers.studies.report import readme_section, screen, told_apart, update
from memlayers.studies.old_studies import Studies, draw_plateaus, plateau_tables, rate_tables, robustness_tables, world_tables
from memlayers.studies.table import dumps, load, rows, summary
from memlayers.studies.tried import tried_tables

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("atlas_readings", "biographies", "atlas_airports", "triples")
STUDY = "memory_vs_dense"
WITH_TABLE = ("values_rule", "fifth_recipe", "fourth_recipe", "third_recipe", "second_recipe", "first_recipe")


def sections(studies: Studies) -> dict[str, str]:
    """The generated parts of LOG.md."""
    return {
        "rates": rate_tables(studies),
        "robustness": robustness_tables(studies),
        "plateau": plateau_tables(studies),
        "tried": tried_tables(studies, "tried"),
        "kept": tried_tables(studies, "kept"),
    } | {name: world_tables(studies.get(name, {})) for name in WITH_TABLE}


def show(folders: list[Path]) -> None:
    """A table for each study and world; where an arm has several configurations, a row for each."""
    console = Console(width=None if Console().is_terminal else 150)
    for folder in folders:
        found = load(folder, "**/")
        if not found:
            raise ValueError(f"{folder}: no record of a finished run; accepted: a folder such as results/local/single")
        for study, worlds in found.items():
            for world, records in worlds.items():
                console.print(screen(f"\n{study}, {world}", rows(told_apart(records)), console.width))


def main() -> int:
    if flags := [word for word in sys.argv[1:] if word.startswith("-")]:
        print(__doc__)
        return 0 if {"-h", "--help"} & set(flags) else 2
    results = ROOT / "results"
    try:
        if sys.argv[1:]:
            show([Path(word) for word in sys.argv[1:]])
            return 0
        studies = load(results)
        found = studies.get(STUDY, {})
        worlds = {world: rows(found[world]) for world in sorted(found, key=lambda name: (*ORDER, name).index(name))}
        (results / "summary.json").write_text(dumps(summary(results)))
        written = [results / "summary.json"]
        if worlds:
            written += draw(worlds, results / STUDY / "figure")
            update(ROOT / "README.md", STUDY, readme_section(worlds))
            for name, content in sections(studies).items():
                update(ROOT / "LOG.md", name, content)
            written += draw_plateaus(studies, results / "plateau")
            written += [ROOT / "README.md", ROOT / "LOG.md"]
        measured = speed.load(results / "bench")
        if {"flat", "level", "peers", "summary"} <= measured.keys():
            update(ROOT / "README.md", "speed", speed.section(measured))
            for name, table in (("parts", speed.parts), ("trace", speed.trace)):
                if name in measured:
                    update(ROOT / "LOG.md", name, table(measured))
            written += speed.draw(measured, results / "bench" / "speed")
    except ValueError as error:
        fail(error)
        return 2
    print("\n".join(str(path.relative_to(ROOT)) for path in written))
    return 0


if __name__ == "__main__":
    verb(main)
