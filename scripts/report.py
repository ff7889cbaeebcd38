"""Tables and figures of records.

python scripts/report.py                                  # redraw RESULTS.md, results/ and the README's table
python scripts/report.py results/local/single             # show the table of the records below a folder, your own
python scripts/report.py results/local/single --out DIR   # and write table.md, .csv, .parquet and figure.png, .svg
python scripts/report.py commit results/local/STUDY       # take a study's records into results/STUDY, and redraw
python scripts/report.py --html                           # one page of all studies in results/: results/report.html
python scripts/report.py --html --model RUN               # with the slots of a run with save_model=true
python scripts/report.py results/local/topk --html --out topk.html    # a page of your own studies
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benches import report as speed
from rich.console import Console

from memlayers.studies.cli import verb
from memlayers.studies.files import settings_in
from memlayers.studies.frame import records
from memlayers.studies.layout import read_layout
from memlayers.studies.results import commit, redraw, studies_in
from memlayers.studies.sections import filled, headline, render
from memlayers.studies.summary import summary
from memlayers.studies.table import screen, table, verdict
from memlayers.studies.ways import SECTION as WAYS
from memlayers.studies.ways import draw_ways

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
HEADLINE = ("frontier", "language")  # the studies in the README
ARMS = ("memory", "ngram", "dense", "dense_4x")


def others() -> tuple[str, ...]:
    """Sections of RESULTS.md beside those of studies."""
    measured = timed()
    return (speed.section(measured),) if measured else ()


def timed() -> dict[str, Any]:
    """What scripts/bench.py saved, if all is there that its section and figure show."""
    measured = speed.load(RESULTS / "bench")
    return measured if {"flat", "level", "peers", "summary"} <= measured.keys() else {}


def results_text() -> str:
    """RESULTS.md."""
    return render(RESULTS, (WAYS, *others()))


def quoted_studies() -> list[Path]:
    """Those of the README's table that are there."""
    return [RESULTS / name for name in HEADLINE if RESULTS / name in studies_in(RESULTS)]


def redraw_all() -> list[Path]:
    written = [path for folder in studies_in(RESULTS) for path in redraw(folder, folder)]
    written += draw_ways(RESULTS, RESULTS / "beyond" / "figure")
    if measured := timed():
        written += speed.draw(measured, RESULTS / "bench" / "speed")
    (ROOT / "RESULTS.md").write_text(results_text())
    if quoted := quoted_studies():
        readme = ROOT / "README.md"
        readme.write_text(filled(readme.read_text(), headline(quoted, ARMS)))
        written.append(readme)
    (RESULTS / "summary.json").write_text(json.dumps(summary(studies_in(RESULTS)), indent=1, sort_keys=True) + "\n")
    return [*written, RESULTS / "summary.json", ROOT / "RESULTS.md"]


def show(folder: Path, out: Path | None) -> list[Path]:
    """The tables below a folder, a study and world each; and their files."""
    layout, frame = read_layout(folder), records(folder)
    console = Console(width=None if Console().is_terminal else 150)
    rows = table(frame, layout)
    for (study, world), own in rows.groupby(["study", "world"], sort=False):
        console.print(screen(f"\n{study}, {world}", own, layout, console.width))
        console.print(verdict(own, layout), highlight=False)
    failed = frame[frame["status"] != "ok"]
    for _, run in failed.iterrows():
        console.print(f"failed: {run['arm']} seed {run['seed']} on {run['world']}: {run['error']}", markup=False)
    return redraw(folder, out, parquet=True) if out else []


def show_page(folders: list[Path], out: Path | None, run: str | None, layers: list[str]) -> list[Path]:
    """The page of some studies, or of all that are in results/ and of what else RESULTS.md has."""
    from memlayers.studies.page.write import write

    own = tuple(settings_in(Path(one).resolve()) for one in layers)
    beside = () if folders else others()
    return [write(folders or studies_in(RESULTS), out or RESULTS / "report.html", beside, run, own)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="folder", help="of records; `commit` before it takes them in")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write the table and the figure, or the page")
    parser.add_argument("--html", action="store_true", help="write one page of all, with figures to look into")
    parser.add_argument("--model", metavar="RUN", help="whose slots the page shows: the name of its record")
    parser.add_argument("--layer", action="append", default=[], metavar="FILE", help="of an arm of your own")
    given = parser.parse_intermixed_args()
    if given.html and given.folders[:1] != ["commit"]:
        written = show_page([Path(one) for one in given.folders], given.out, given.model, given.layer)
    elif given.html or given.model or given.layer:
        name = "--html" if given.html else "--model" if given.model else "--layer"
        raise ValueError(f"{name} does not go with that; accepted: [FOLDER ...] --html [--model RUN]")
    elif given.folders[:1] == ["commit"]:
        if len(given.folders) != 2 or given.out:
            raise ValueError("commit takes one folder: scripts/report.py commit results/local/STUDY")
        written = [commit(Path(given.folders[1]), RESULTS), *redraw_all()]
    elif given.folders:
        if given.out and len(given.folders) > 1:
            raise ValueError(f"--out={given.out} is for one folder, and {len(given.folders)} are named")
        written = [path for folder in given.folders for path in show(Path(folder), given.out)]
    elif given.out:
        raise ValueError(f"--out={given.out} needs a folder of records; accepted: FOLDER --out DIR")
    else:
        written = redraw_all()
    print("\n".join(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for path in written))
    return 0


if __name__ == "__main__":
    verb(main)
