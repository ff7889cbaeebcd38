"""What all commands share: everything is checked first; one line and no traceback for a mistake; exit codes."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import TextIO, cast

import hydra
from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from memlayers.config import RunConfig
from memlayers.studies.compose import axes_override, composed, composing, jobs_of, to_run_config
from memlayers.studies.display import StudyDisplay, labels
from memlayers.studies.files import CONF, load_layers, quote_paths
from memlayers.studies.layout import write_layout
from memlayers.studies.output import Unread
from memlayers.studies.rates import tuned_words
from memlayers.studies.schemas import register
from memlayers.studies.workers import end_with_study, keep_freed_memory, wait_for_workers
from memlayers.training import ranks
from memlayers.training.record import Record, check_writable, ended, finished, record_path


def fail(error: Exception) -> None:
    """A user's mistake (ValueError) is one line; anything else is a defect and keeps its traceback."""
    if isinstance(error, ValueError | FloatingPointError):
        if not ranks.is_first():
            return  # the first process says it
        print(f"memlayers: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exc()


def verb(main: Callable[[], int]) -> None:
    """Run a script's main to an exit code; Ctrl-C is one line, and a closed pipe nothing to fail by."""
    sys.stdout = cast(TextIO, Unread(sys.stdout))
    if not sys.stdout.isatty():  # else FORCE_COLOR, which notebooks and CI set, has Rich redraw a display in their logs
        os.environ.setdefault("TTY_COMPATIBLE", "0")
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nmemlayers: interrupted", file=sys.stderr)
        sys.exit(130)


def job(config: DictConfig) -> None:
    """What a launcher runs, possibly in another process. A failure is in the record; the parent reports it."""
    register()
    from memlayers.training.divergence import Diverged
    from memlayers.training.run import run

    end_with_study()
    keep_freed_memory()
    try:
        words = list(HydraConfig.get().overrides.task)
        run(to_run_config(composed(words), words))
    except Exception as error:
        if config.progress != "none" or ranks.count() > 1:  # else the parent reports it
            fail(error)
        if ranks.count() > 1 and not isinstance(error, Diverged):
            os._exit(1)  # others may be in the middle of this run; torchrun ends them


def words_of(arguments: list[str]) -> list[str]:
    """A command line as Hydra wants it: flags first, layers in files registered, file names quoted."""
    return quote_paths(load_layers(flags_first(arguments)))


def jobs_from(arguments: list[str]) -> list[RunConfig] | None:
    """The jobs of a command line, checked; None where Hydra is only asked something (--help, --cfg ...)."""
    parsed = get_args_parser().parse_args(words_of(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return None
    return jobs_of(parsed.overrides, bool(parsed.multirun))


def begin_with(arguments: list[str]) -> list[str]:
    """What was tuned for the one run of a command line, as words of it; nothing for a sweep."""
    parsed = get_args_parser().parse_args(arguments)
    swept = [one for one in OverridesParser.create().parse_overrides(parsed.overrides) if one.is_sweep_override()]
    several = parsed.multirun or swept
    return [] if several else tuned_words(compose("train", parsed.overrides), parsed.overrides)


def flags_first(arguments: list[str]) -> list[str]:
    """As argparse wants them, so that -m may stand anywhere; only flags without a value of their own are moved."""
    return sorted(arguments, key=lambda word: word not in ("-m", "--multirun"))


def execute(arguments: list[str]) -> int:
    """Run, sweep or study a command line. Exit code 0 only if every run has a record that says ok, 2 for a mistake."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of workers, after Ctrl-C
    warnings.filterwarnings("ignore", "A worker stopped while some jobs")  # joblib starts another one
    jobs = None
    if not ranks.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        sys.argv[1:] = words_of(arguments)
        register()
        application = hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(job)
        jobs = jobs_from(arguments)
        if jobs is not None:
            for one in jobs:
                ranks.check(one.trainer)
            return study(jobs, application, arguments)
        with composing():
            insert(begin_with(sys.argv[1:]))  # so that --cfg shows what a run would have
        application()
        return 0
    except ValueError as error:
        fail(error)
        return 2
    except KeyboardInterrupt as stop:
        number, step = getattr(stop, "number", signal.SIGINT), getattr(stop, "step", None)
        kept = "finished runs are kept, and the same command goes on from there"
        if jobs is not None and len(jobs) == 1:
            kept = "nothing is kept" if step is None else f"the same command goes on from step {step}"
        if ranks.is_first():
            print(f"\nmemlayers: interrupted; {kept}", file=sys.stderr, flush=True)
        os._exit(128 + number)  # workers of a launcher must not keep us waiting


def run_one(words: list[str]) -> Record:
    """The record of the one run that a command line describes, and under `path` its file.

    Raises ValueError for several, and for mistakes.
    """
    from memlayers.training.run import run

    words = words_of(words)
    jobs = jobs_of(words, multirun=False)
    if len(jobs) != 1:
        raise ValueError(f"{' '.join(words)}: {len(jobs)} runs; accepted: one (scripts/train.py runs a study)")
    return run(jobs[0]) | {"path": str(record_path(jobs[0]))}


def study(jobs: list[RunConfig], application: Callable[[], None], arguments: list[str]) -> int:
    """Run what is not finished, with one display for all; say what failed."""
    began = time.time()
    todo = [one for one in jobs if finished(one) is None]
    if not todo:
        if len(jobs) == 1:
            print(f"finished already: {record_path(jobs[0])}; delete it, or add study=NAME, to run again")
        else:
            print_where(jobs)
        return 0
    if ranks.is_first():
        for folder in {record_path(one).parent for one in todo}:
            check_writable(folder)
        write_layout(jobs, arguments)
    insert(ranks.launcher_overrides(arguments))
    if len(jobs) == 1:
        application()
    else:
        insert(["progress=none", axes_override(list(jobs[0].axes))])
        wait_for_workers()
        with StudyDisplay(jobs):
            application()
    failed = 0
    for name, one in zip(labels(jobs), jobs, strict=True):
        record = ended(record_path(one), began)
        if record is not None and record["status"] == "ok":
            continue
        failed += 1
        if ranks.is_first() and (len(jobs) > 1 or one.progress == "none" or record is None):
            print(f"memlayers: {name} failed: {record['error'] if record else 'it left no record'}", file=sys.stderr)
    if len(jobs) > 1:
        print_where(jobs)
    elif not failed:
        print(record_path(jobs[0]))
    return 1 if failed else 0


def insert(words: list[str]) -> None:
    """Beside the other overrides of this process: flags may stand before and behind them."""
    places = (i for i, word in enumerate(sys.argv) if i and "=" in word and not word.startswith("-"))
    first = next(places, len(sys.argv))
    sys.argv[first:first] = words


def print_where(jobs: list[RunConfig]) -> None:
    """Where the records of several runs are."""
    done = sum(finished(one) is not None for one in jobs)
    folders = dict.fromkeys(str(record_path(one).parent) for one in jobs)
    print(f"{done} of {len(jobs)} runs are finished: {', '.join(folders)}")
