"""What all commands share: checks before any run, one line without traceback for a user's mistake, exit codes."""

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
from memlayers.studies.compose import axes_override, compose_tuned, composing, jobs_of, to_run_config
from memlayers.studies.display import StudyDisplay, labels
from memlayers.studies.files import CONF, load_layers, quote_paths
from memlayers.studies.layout import write_layout
from memlayers.studies.output import Unread
from memlayers.studies.rates import tuned_words
from memlayers.studies.schemas import register
from memlayers.studies.workers import end_with_study, keep_freed_memory, wait_for_workers
from memlayers.training import ranks
from memlayers.training.record import Record, check_writable, ended, finished, record_path

MISTAKES = (ValueError, OSError, FloatingPointError)  # of the user, of the file system, or divergence: one line


def fail(error: Exception) -> None:
    """Report an error: one of MISTAKES in one line, any other with its traceback."""
    if not isinstance(error, MISTAKES):
        traceback.print_exc()
    elif ranks.is_first():  # which reports for all
        path = getattr(error, "filename", None)  # of an OSError
        print(f"memlayers: {f'{path}: {error.args[1]}' if path else error}", file=sys.stderr, flush=True)


def verb(main: Callable[[], int]) -> None:
    """Run a script's main and exit with its code, or with 2 for one of MISTAKES, in one line. Ctrl-C gives one line
    too, and a closed pipe is no error.
    """
    sys.stdout = cast(TextIO, Unread(sys.stdout))
    if not sys.stdout.isatty():  # else Rich redraws displays in logs where FORCE_COLOR is set, as in notebooks and CI
        os.environ.setdefault("TTY_COMPATIBLE", "0")
    try:
        sys.exit(main())
    except MISTAKES as error:
        fail(error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nmemlayers: interrupted", file=sys.stderr)
        sys.exit(130)


def job(config: DictConfig) -> None:
    """Run one job, perhaps in a process of a launcher. A failure goes into the record, from which the parent reports
    it.
    """
    register()
    from memlayers.training.divergence import Diverged
    from memlayers.training.run import run

    end_with_study()
    keep_freed_memory()
    try:
        words = list(HydraConfig.get().overrides.task)
        run(to_run_config(compose_tuned(words), words))
    except Exception as error:
        if config.progress != "none" or ranks.count() > 1:  # else the parent reports it
            fail(error)
        if ranks.count() > 1 and not isinstance(error, Diverged):
            os._exit(1)  # other processes of this run may wait for this one; torchrun ends them


def words_of(arguments: list[str]) -> list[str]:
    """The command line in the form that Hydra takes: -m first, wherever it was, user's layers registered, file names
    quoted.
    """
    flags_first = sorted(arguments, key=lambda word: word not in ("-m", "--multirun"))
    return quote_paths(load_layers(flags_first))


def jobs_from(arguments: list[str]) -> list[RunConfig] | None:
    """The validated jobs of a command line; None for one that only asks Hydra for information (--help, --cfg ...)."""
    parsed = get_args_parser().parse_args(words_of(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return None
    return jobs_of(parsed.overrides, bool(parsed.multirun))


def tuned_overrides(arguments: list[str]) -> list[str]:
    """The tuned settings for a command line of one run, as overrides; none for a sweep."""
    parsed = get_args_parser().parse_args(arguments)
    overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    swept = [override for override in overrides if override.is_sweep_override()]
    several = parsed.multirun or swept
    return [] if several else tuned_words(compose("train", parsed.overrides), parsed.overrides)


def execute(arguments: list[str]) -> int:
    """Execute the command line of a run, sweep or study. Exit code 0 only if all runs succeeded, 2 for a mistake."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # workers print it after Ctrl-C
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
            for config in jobs:
                ranks.check(config.trainer)
            return study(jobs, application, arguments)
        with composing():
            insert_overrides(tuned_overrides(sys.argv[1:]))  # so that --cfg shows the settings of a run
        application()
        return 0
    except MISTAKES as error:
        fail(error)
        return 2
    except KeyboardInterrupt as stop:
        number, step = getattr(stop, "number", signal.SIGINT), getattr(stop, "step", None)
        kept = "finished runs are kept, and the same command goes on from there"
        if jobs is not None and len(jobs) == 1:
            kept = "nothing is kept" if step is None else f"the same command goes on from step {step}"
        if ranks.is_first():
            print(f"\nmemlayers: interrupted; {kept}", file=sys.stderr, flush=True)
        os._exit(128 + number)  # without waiting for a launcher's workers


def run_one(words: list[str]) -> Record:
    """Run the one job of a command line; returns its record, with its file as `path`.

    Raises ValueError for several, and for mistakes.
    """
    from memlayers.training.run import run

    words = words_of(words)
    jobs = jobs_of(words, multirun=False)
    if len(jobs) != 1:
        raise ValueError(f"{' '.join(words)}: {len(jobs)} runs; accepted: one (scripts/train.py runs a study)")
    return run(jobs[0]) | {"path": str(record_path(jobs[0]))}


def study(jobs: list[RunConfig], application: Callable[[], None], arguments: list[str]) -> int:
    """Run the unfinished jobs, with one display for all, and report failures; returns the exit code."""
    began = time.time()
    todo = [config for config in jobs if finished(config) is None]
    if not todo:
        if len(jobs) == 1:
            print(f"finished already: {record_path(jobs[0])}; delete it, or add study=NAME, to run again")
        else:
            print_where(jobs)
        return 0
    if ranks.is_first():
        for folder in {record_path(config).parent for config in todo}:
            check_writable(folder)
        write_layout(jobs, arguments)
    insert_overrides(ranks.launcher_overrides(arguments))
    if len(jobs) == 1:
        application()
    else:
        insert_overrides(["progress=none", axes_override(list(jobs[0].axes))])
        wait_for_workers()
        with StudyDisplay(jobs):
            application()
    failed = 0
    for name, config in zip(labels(jobs), jobs, strict=True):
        if finished(config) is not None:
            continue
        record = ended(record_path(config), began)
        failed += 1
        if ranks.is_first() and (len(jobs) > 1 or config.progress == "none" or record is None):
            print(f"memlayers: {name} failed: {record['error'] if record else 'it left no record'}", file=sys.stderr)
    if len(jobs) > 1:
        print_where(jobs)
    elif not failed:
        print(record_path(jobs[0]))
    return 1 if failed else 0


def insert_overrides(words: list[str]) -> None:
    """Insert overrides into sys.argv, before those that are there; flags may come before and after."""
    places = (i for i, word in enumerate(sys.argv) if i and "=" in word and not word.startswith("-"))
    first = next(places, len(sys.argv))
    sys.argv[first:first] = words


def print_where(jobs: list[RunConfig]) -> None:
    """Print how many runs are finished, and where their records are."""
    done = sum(finished(config) is not None for config in jobs)
    folders = dict.fromkeys(str(record_path(config).parent) for config in jobs)
    print(f"{done} of {len(jobs)} runs are finished: {', '.join(folders)}")
