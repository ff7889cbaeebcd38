"""Search the settings of arms, each with the same number of trials, in every world and at every budget that is named.

python scripts/tune.py arm=dense,memory world=atlas_airports training.exposures=4,16
python scripts/tune.py arm=memory --trials 48 --workers 1
python scripts/tune.py arm=memory world=biographies training.exposures=4 --resume     with the trials in results/tune/
python scripts/tune.py --commit          take what is found into results/tune/ and conf/rates/

A search goes on where it was stopped. --trials applies to each search and counts those that are there. If the best is
at an end of a range after all of them, and recalls less than 0.99, that range is widened and the search goes on for
another quarter of the trials, at most twice.
"""

import argparse
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from memlayers.checks import at_least
from memlayers.studies.cli import verb, words_of
from memlayers.studies.compose import composing, split_sweep
from memlayers.studies.files import CONF
from memlayers.studies.workers import keep_freed_memory

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "local" / "tune"


def work(searches: list[list[str]], out: Path, trials: int, first: int) -> None:
    """Finish all searches, starting with number `first`; the work of one process."""
    from memlayers.studies.search import Search
    from memlayers.studies.space import edges

    keep_freed_memory()
    with suppress(KeyboardInterrupt):  # which the parent reports
        for words in [*searches[first:], *searches[:first]]:
            search = Search(words, out)
            while search.step(trials):
                pass
            if not search.is_finished():
                print(f"{' '.join(search.words)}: another process has the last runs", flush=True)
                continue
            best = search.best()
            at_edge = edges(search.space_after(len(search.trials())), best)
            print(f"{' '.join(search.words)}: recall {search.mean(best):.3f}, trial {best.number}", flush=True)
            print("  " + " ".join(best.user_attrs["words"]), flush=True)
            if at_edge:
                values = ", ".join(f"{name}={best.params[name]:.3g}" for name in at_edge)
                print(f"  at the end of its range: {values}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--commit", action="store_true")
    parser.add_argument("--resume", action="store_true", help="add the committed trials to each search first")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the trials; default: results/local/tune")
    options = parser.parse_intermixed_args()
    from memlayers.studies.search import FINALISTS, Search
    from memlayers.studies.tune import commit, resume

    if options.commit:
        if given := [*options.words, *["--resume"] * options.resume]:
            raise ValueError(f"{' '.join(given)} has no effect; accepted: --commit alone, for all searches")
        written, left_out = commit(options.out, ROOT / "results" / "tune", CONF / "rates")
        unfinished = (f"left out, as it is not finished or has fewer trials: {search}" for search in left_out)
        print(*written, *unfinished, sep="\n")
        return 0
    at_least("--trials", options.trials, FINALISTS)
    at_least("--workers", options.workers, 1)
    with composing():
        searches, _ = split_sweep(words_of(options.words), multirun=True)
    for words in searches:
        search = Search(words, options.out)  # raises for a mistake in any search before the first one starts
        if options.resume:
            print(f"{' '.join(words)}: {resume(search, ROOT / 'results' / 'tune')} trials from results/tune/")
    starts = [worker * len(searches) // options.workers for worker in range(options.workers)]
    workers = [
        multiprocessing.Process(target=work, args=(searches, options.out, options.trials, first), daemon=True)
        for first in starts
    ]
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that daemon processes end too
    for worker in workers:
        worker.join()
    return max(abs(worker.exitcode or 0) for worker in workers)


if __name__ == "__main__":
    verb(main)
