"""Redraw everything that is drawn from the committed records: README table, figure, results/summary.json.

python scripts/report.py
"""

import sys
from pathlib import Path

from memlayers.cli import fail
from memlayers.figure import draw
from memlayers.report import update_readme
from memlayers.table import dumps, load, rows, summary

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("atlas_readings", "biographies", "atlas_airports", "triples")
STUDY = "memory_vs_dense"


def main() -> int:
    results = ROOT / "results"
    try:
        found = load(results).get(STUDY, {})
        worlds = {world: rows(found[world]) for world in sorted(found, key=ORDER.index)}
        (results / "summary.json").write_text(dumps(summary(results)))
        written = [results / "summary.json"]
        if worlds:
            written += draw(worlds, results / STUDY / "figure")
            update_readme(ROOT / "README.md", worlds)
            written.append(ROOT / "README.md")
    except ValueError as error:
        fail(error)
        return 2
    print("\n".join(str(path.relative_to(ROOT)) for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
