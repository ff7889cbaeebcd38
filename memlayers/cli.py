"""The verbs' shared manners: check everything first, one line for a mistake, no traceback, an honest exit code."""

import os
import sys
import time
import traceback
from collections.abc import Callable

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from memlayers.compose import CONF, jobs_of, register, to_run_config
from memlayers.config.run import RunConfig
from memlayers.display import StudyDisplay, labels
from memlayers.record import check_writable, ended, finished, record_path


def fail(error: Exception) -> None:
    """A user's mistake (ValueError) is one line; anything else is a defect and keeps its traceback."""
    if isinstance(error, ValueError | FloatingPointError):
        print(f"memlayers: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exc()


def verb(main: Callable[[], int]) -> None:
    """Run a script's main to an exit code; Ctrl-C is one line."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nmemlayers: interrupted", file=sys.stderr)
        sys.exit(130)


def job(config: DictConfig) -> None:
    """What a launcher runs, possibly in another process. A failure is in the record; the parent tells it."""
    register()
    from memlayers.run import run

    try:
        run(to_run_config(config))
    except Exception as error:
        if config.progress != "none":  # else the parent tells it
            fail(error)


def jobs_from(arguments: list[str]) -> list[RunConfig] | None:
    """The jobs of a command line, checked; None where Hydra is only asked something (--help, --cfg ...)."""
    parsed = get_args_parser().parse_args(flags_first(arguments))
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return None
    return jobs_of(parsed.overrides, bool(parsed.multirun))


def flags_first(arguments: list[str]) -> list[str]:
    """As argparse wants them, so that -m may stand anywhere; only flags without a value of their own are moved."""
    return sorted(arguments, key=lambda word: word not in ("-m", "--multirun"))


def execute(arguments: list[str]) -> int:
    """Run, sweep or study a command line. Exit code 0 only if every run has a record that says ok, 2 for a mistake."""
    sys.argv[1:] = flags_first(arguments)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of workers, after Ctrl-C
    register()
    jobs = None
    application = hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(job)
    try:
        jobs = jobs_from(arguments)
        if jobs is not None:
            return study(jobs, application)
        application()
        return 0
    except ValueError as error:
        fail(error)
        return 2
    except KeyboardInterrupt:
        kept = "finished runs are kept, and the same command goes on from there"
        if jobs is not None and len(jobs) == 1:
            kept = "nothing is recorded; with save_checkpoint=true a run can be resumed by checkpoint=FILE"
            if jobs[0].save_checkpoint:
                kept = "resume with checkpoint=" + str(record_path(jobs[0]).with_suffix(".ckpt"))
        print(f"\nmemlayers: interrupted; {kept}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(130)  # workers of a launcher must not keep us waiting


def study(jobs: list[RunConfig], application: Callable[[], None]) -> int:
    """Run what is not finished, with one display for all; say what failed."""
    began = time.time()
    todo = [one for one in jobs if finished(one) is None]
    if not todo:
        if len(jobs) == 1:
            print(f"finished already: {record_path(jobs[0])}; delete it, or add study=NAME, to run again")
        else:
            tell_where(jobs)
        return 0
    for folder in {record_path(one).parent for one in todo}:
        check_writable(folder)
    if len(jobs) == 1:
        application()
    else:
        first = next(
            (i for i, word in enumerate(sys.argv) if i and "=" in word and not word.startswith("-")), len(sys.argv)
        )
        sys.argv.insert(first, "progress=none")  # beside the other overrides: flags may stand before and behind them
        with StudyDisplay(jobs):
            application()
    failed = 0
    for name, one in zip(labels(jobs), jobs, strict=True):
        record = ended(record_path(one), began)
        if record is not None and record["status"] == "ok":
            continue
        failed += 1
        if len(jobs) > 1 or one.progress == "none" or record is None:
            print(f"memlayers: {name} failed: {record['error'] if record else 'it left no record'}", file=sys.stderr)
    if len(jobs) > 1:
        tell_where(jobs)
    elif not failed:
        print(record_path(jobs[0]))
    return 1 if failed else 0


def tell_where(jobs: list[RunConfig]) -> None:
    """Where the records of several runs are."""
    done = sum(finished(one) is not None for one in jobs)
    folders = dict.fromkeys(str(record_path(one).parent) for one in jobs)
    print(f"{done} of {len(jobs)} runs are finished: {', '.join(folders)}")
