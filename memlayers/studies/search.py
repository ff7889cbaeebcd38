"""A search for the settings of one arm in one world at one budget, which are the words of a command line.

Its trials are runs on a tuning seed; the best few are run again on two more seeds, and the best mean wins. If the best
is at an end of a range, that range is widened and the search goes on for another quarter of its trials, at most twice.
All is kept in a journal file, so that a search can be resumed, and shared by several processes.
"""

import copy
import shlex
import statistics
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from memlayers.studies.compose import compose_one, composing
from memlayers.studies.files import quote_paths
from memlayers.studies.space import Space, edges, ranges, space_of, start_of, suggest, widened
from memlayers.training.provenance import code_version

SEEDS = (11, 12, 13)  # the first for all trials, the others for finalists; no comparison uses them
FINALISTS = 4
FIXED = ("seed=", "study=", "results=", "logger", "progress=", "training.probes=", "training.steps=", "rates.")
DEAD = timedelta(hours=1)  # a trial that runs longer counts as that of a killed process
TPE: dict[str, Any] = {"n_startup_trials": 8, "constant_liar": True}
# With these, too, settings are drawn jointly, but Optuna never leaves the first range that a setting had.
JOINT: dict[str, Any] = {"multivariate": True, "group": True}
SATURATED = 0.99  # a search whose best recalls more does not go on


def stops(trials: int) -> list[int]:
    """The numbers of trials at which a search of `trials` may end: these, and one or two quarters more."""
    return [quarters * trials // 4 for quarters in (4, 5, 6)]


def storage_in(folder: Path) -> JournalStorage:
    """The journal of a folder, which several processes may write."""
    file = str(folder / "trials.journal")
    return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))


class Search:
    """The search for one arm in one world at one budget, named by its overrides."""

    def __init__(self, words: list[str], folder: Path):
        if own := [word for word in words if word.startswith(FIXED)]:
            raise ValueError(f"{own[0]}: every search sets that itself; accepted: without it")
        self.words, self.folder = sorted(words), folder
        folder.mkdir(parents=True, exist_ok=True)
        with composing():
            self.config = compose_one(self.words)
            self.space = space_of(compose_one([*self.words, "rates.arm=null"]))  # without tuned settings
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.study = optuna.create_study(
            storage=storage_in(folder),
            study_name=shlex.join(self.words),
            direction="maximize",
            load_if_exists=True,
        )

    @property
    def asked(self) -> int:
        """The number of trials that were last asked for."""
        return int(self.study.user_attrs.get("trials", 0))

    def trials(self) -> list[FrozenTrial]:
        """The completed trials."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    def under_way(self) -> int:
        """The number of trials that any process is running."""
        running = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return sum(datetime.now() - (trial.datetime_start or datetime.min) < DEAD for trial in running)

    def step(self, trials: int) -> bool:
        """Run the next run of a search of so many trials; False if none is left that no other process runs."""
        if self.asked != trials:
            self.study.set_user_attr("trials", trials)
        following = self.next_run(trials, self.under_way())
        if following is None:
            return False
        finalist, seed = following
        if finalist is None:
            self.run_trial(self.space_at(trials, len(self.trials())))
        else:
            self.store(finalist, seed, self.recall(finalist.user_attrs["words"], seed))
        return True

    def next_run(self, trials: int, running: int = 0) -> tuple[FrozenTrial | None, int] | None:
        """The next run of a search of so many trials, some of them running: a finalist, or None for a new trial, and
        the seed. None if no run is left.
        """
        goal = self.goal(trials)
        if len(self.trials()) + running < goal:
            return None, SEEDS[0]
        return self.finalist_left(goal) or self.finalist_left(None)  # the latter if there are more trials than that

    def goal(self, trials: int) -> int:
        """The number of trials, as far as is known, of a search of so many: more if its best is at an end."""
        *earlier, most = stops(trials)
        for stop in earlier:
            if len(self.trials()) < stop or self.finalist_left(stop):
                return stop
            if self.mean(self.best(stop)) > SATURATED or not edges(self.space_after(stop), self.best(stop)):
                return stop
        return most

    def finalist_left(self, count: int | None) -> tuple[FrozenTrial, int] | None:
        """A finalist of the first `count` trials, or of all, and a seed on which it is to run."""
        left = ((trial, seed) for trial in self.finalists(count) for seed in SEEDS[1:])
        return next(((trial, seed) for trial, seed in left if str(seed) not in self.again(trial)), None)

    def is_finished(self) -> bool:
        """Whether no run is left of the trials that were asked for."""
        return self.asked >= FINALISTS and self.next_run(self.asked) is None

    def space_at(self, trials: int, number: int) -> Space:
        """The space of a trial by its number: beyond a stop, ranges at whose end the best was are wider."""
        passed = [stop for stop in stops(trials) if stop <= number]
        if not passed:
            return self.space_after(number)
        space = self.space_after(passed[-1])
        return widened(space, edges(space, self.best(passed[-1])))

    def space_after(self, count: int) -> Space:
        """The space with ranges as wide as any of the first `count` trials had."""
        space = copy.deepcopy(self.space)
        for name, entry in ranges(space).items():
            for trial in self.trials()[:count]:
                kind = trial.distributions.get(name)
                if isinstance(kind, FloatDistribution) and kind.low < float(entry["low"]):
                    entry["low"] = kind.low
                if isinstance(kind, FloatDistribution) and kind.high > float(entry["high"]):
                    entry["high"] = kind.high
        return space

    def run_trial(self, space: Space) -> None:
        """Run a trial; the first one is where the space begins."""
        if not self.trials() and not self.under_way():
            self.study.enqueue_trial(start_of(self.space))
        self.study.sampler = TPESampler(**TPE, **(JOINT if space == self.space else {}))
        trial = self.study.ask()
        words = suggest(trial, space)
        trial.set_user_attr("words", words)
        trial.set_user_attr("code", code_version())
        try:
            self.study.tell(trial, self.recall(words, SEEDS[0]))
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL)  # does not count as a trial
            raise

    def recall(self, words: list[str], seed: int) -> float:
        """Train with these overrides; returns the recall, in held-out phrasings if there are any; 0 if it diverged."""
        from memlayers.training.run import run

        fixed = [f"seed={seed}", "study=trials", f"results={self.folder}", "logger=none", "progress=none"]
        fixed += ["training.probes=1", "rates.arm=null"]
        with composing():
            config = compose_one([*self.words, *words, *quote_paths(fixed)])
        try:
            recall = run(config)["recall"]
            return float(recall["exact"] if recall["held_out"] is None else recall["held_out"])
        except FloatingPointError:
            return 0.0

    def finalists(self, count: int | None = None) -> list[FrozenTrial]:
        """The trials with the best recall, of the first `count` or of all."""
        ended = [trial for trial in self.trials()[:count] if trial.value is not None]
        return sorted(ended, key=lambda trial: (-trial.value, trial.number))[:FINALISTS]  # type: ignore[operator]

    def again(self, trial: FrozenTrial) -> dict[str, float]:
        """Recall of a finalist on the further seeds so far, by seed."""
        recalls: dict[str, float] = self.study.user_attrs.get(f"again {trial.number}", {})
        return recalls

    def store(self, trial: FrozenTrial, seed: int, recall: float) -> None:
        """Keep the recall of a finalist on a further seed."""
        self.study.set_user_attr(f"again {trial.number}", self.again(trial) | {str(seed): recall})

    def mean(self, trial: FrozenTrial) -> float:
        """Mean recall over the tuning seeds so far."""
        assert trial.value is not None
        return statistics.mean([trial.value, *self.again(trial).values()])

    def best(self, count: int | None = None) -> FrozenTrial:
        """The finalist with the best mean over all tuning seeds, of the first `count` trials or of all."""
        return max(self.finalists(count), key=self.mean)
