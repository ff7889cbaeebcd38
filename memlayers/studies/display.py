"""The progress of a study under any launcher: a live table on a terminal, plain lines elsewhere."""

import threading
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text as Line

from memlayers.config import RunConfig
from memlayers.training.progress_notes import read_partial
from memlayers.training.record import ended, finished, record_path

EVERY = 0.5  # seconds between updates


def labels(jobs: list[RunConfig]) -> list[str]:
    """A label for each job: arm and seed, its world if there are several, and its values of the other swept axes."""
    several = len({job.world.name for job in jobs}) > 1
    values = {key: {str(job.axes.get(key)) for job in jobs} for key in jobs[0].axes} if jobs else {}
    swept = [
        key
        for key, axis_values in values.items()
        if key not in ("arm", "ffn", "seed", "world") and len(axis_values) > 1
    ]
    worlds = [[job.world.name] if several else [] for job in jobs]
    axis_values = [[f"{key}={job.axes[key]}" for key in swept] for job in jobs]
    parts = zip(jobs, worlds, axis_values, strict=True)
    return [" ".join([job.arm, f"seed {job.seed}", *world, *rest]) for job, world, rest in parts]


def work_of(job: RunConfig) -> float:
    """The approximate training FLOPs of a run, in units that its study shares: exposures (or steps) * match.times."""
    return (job.training.steps or job.training.exposures) * (job.match.times if job.match.reference is not None else 1)


class StudyDisplay:
    """Shows progress from the records and progress files on disk: run 7 of 15, arm, seed, loss, recall, time left."""

    def __init__(self, jobs: list[RunConfig], console: Console | None = None):
        self.jobs = [(name, record_path(job)) for name, job in zip(labels(jobs), jobs, strict=True)]
        self.work = {record_path(job): work_of(job) for job in jobs}
        self.console = console or Console()
        self.began = time.time()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.done_before = {record_path(job) for job in jobs if finished(job) is not None}
        self.shown: set[Path] = set(self.done_before)

    def __enter__(self) -> "StudyDisplay":
        if self.done_before:
            self.console.print(f"{len(self.done_before)} of {len(self.jobs)} runs are finished already")
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()

    def _follow(self) -> None:
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            while not self.stop.wait(EVERY):
                self._report()
            self._report()
            return
        with Live(self.render(), console=self.console, refresh_per_second=4, transient=True) as live:
            while not self.stop.wait(EVERY):
                self._report()
                live.update(self.render())
            self._report()

    def _report(self) -> None:
        """Print a line for each run that ended since the last call."""
        for name, path in self.jobs:
            record = None if path in self.shown else ended(path, self.began)
            if record is not None:
                self.shown.add(path)
                head = f"run {len(self.shown)} of {len(self.jobs)}  {name}"
                if record["status"] == "ok":
                    end = f"recall {record['recall']['exact']:.3f}  {record['timing']['seconds']:.0f} s"
                else:
                    end = f"failed: {record['error']}"
                self.console.print(
                    Line(f"{head}  {end}  {self.time_left()}"), soft_wrap=True
                )  # as Line, so that brackets are no markup

    def share_done(self) -> float:
        """The share of the work that is done, without runs that were finished before."""
        done, todo = 0.0, [path for _, path in self.jobs if path not in self.done_before]
        for path in todo:
            note = None if path in self.shown else read_partial(path)
            part = note["step"] / note["steps"] if note is not None else float(path in self.shown)
            done += self.work[path] * part
        return done / max(1e-9, sum(self.work[path] for path in todo))

    def time_left(self) -> str:
        """The estimated time left, in proportion to training FLOPs; empty at the beginning."""
        share = self.share_done()
        if share <= 0.02:
            return ""
        seconds = (time.time() - self.began) * (1 - share) / share
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def render(self) -> Group:
        """The live table: a row for each run under way."""
        table = Table(box=None, pad_edge=False)
        for title in ("run", "progress", "step", "loss", "recall so far"):
            table.add_column(title, justify="left" if title in ("run", "progress") else "right")
        for name, path in self.jobs:
            note = None if path in self.shown else read_partial(path)
            if note is not None:
                bar = ProgressBar(total=note["steps"], completed=note["step"], width=24)
                numbers = ["" if note[key] is None else f"{note[key]:.3f}" for key in ("loss", "recall")]
                table.add_row(name, bar, f"{note['step']}/{note['steps']}", *numbers)
        ended = len(self.shown)
        head = f"run {min(len(self.jobs), ended + 1)} of {len(self.jobs)}  {self.time_left()}"
        return Group(Line(head, style="bold"), table if table.row_count else Line("starting ...", style="dim"))
