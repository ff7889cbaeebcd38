"""Redraw everything that is drawn from the committed records: README and LOG tables, figure, results/summary.json.

python scripts/report.py
"""

import sys
from pathlib import Path

from memlayers import speed
from memlayers.cli import fail, verb
from memlayers.figure import draw
from memlayers.report import readme_section, update
from memlayers.studies import Studies, draw_plateaus, plateau_tables, rate_tables, robustness_tables, world_tables
from memlayers.table import dumps, load, rows, summary
from memlayers.tried import tried_tables

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


def main() -> int:
    if sys.argv[1:]:
        print(__doc__)
        return 0 if {"-h", "--help"} & set(sys.argv[1:]) else 2
    results = ROOT / "results"
    try:
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
