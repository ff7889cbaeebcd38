"""A search for the settings of one arm in one world at one budget, which are the words of a command line.

Its trials are runs on a tuning seed; the best few are run again on two more seeds, and the best mean wins. While the
best stands at an end of a range, that range is widened for a further quarter of the trials, at most twice. All is kept
in a journal file, so that a search can be resumed, and shared by several processes.
"""

import shlex
import statistics
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from memlayers.studies.compose import compose_one, composing
from memlayers.studies.files import quote_paths
from memlayers.studies.space import Space, edges, space_of, start_of, suggest, widened
from memlayers.training.provenance import code_version

SEEDS = (11, 12, 13)  # the first for all trials, the others for finalists; no comparison uses them
FINALISTS = 4
FIXED = ("seed=", "study=", "results=", "logger", "progress=", "training.probes=", "training.steps=", "rates.")
DEAD = timedelta(hours=1)  # a trial that runs longer counts as that of a killed process
SATURATED = 0.99  # a best of more recall is not searched for beyond the ends of ranges


def counts(trials: int) -> list[int]:
    """The numbers of trials after which a search of `trials` looks whether its best stands at an end of a range; there
    it goes on to the next of them.
    """
    return [quarters * trials // 4 for quarters in (3, 4, 5, 6)]


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
        sampler = optuna.samplers.TPESampler(n_startup_trials=8, multivariate=True, group=True, constant_liar=True)
        self.study = optuna.create_study(
            storage=storage_in(folder),
            sampler=sampler,
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
        """Run the next run of a search of so many trials; False if none is left."""
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
        count = self.goal(trials)
        if len(self.trials()) + running < count:
            return None, SEEDS[0]
        return self.finalist_left(count)

    def goal(self, trials: int) -> int:
        """The number of trials, as far as is known, of a search of so many: more if its best stands at an end."""
        *goes_on, most = counts(trials)[1:]
        for count in goes_on:
            if len(self.trials()) < count or self.finalist_left(count):
                return count
            if self.mean(self.best(count)) > SATURATED or not self.edges(trials, count):
                return count
        return most

    def finalist_left(self, count: int) -> tuple[FrozenTrial, int] | None:
        """A finalist of the first `count` trials and a seed on which it is to run."""
        left = ((trial, seed) for trial in self.finalists(count) for seed in SEEDS[1:])
        return next(((trial, seed) for trial, seed in left if str(seed) not in self.again(trial)), None)

    def is_finished(self) -> bool:
        """Whether no run is left of the trials that were asked for."""
        return len(self.trials()) >= FINALISTS and self.next_run(self.asked) is None

    def run_trial(self, space: Space) -> None:
        """Run a trial; the first one is where the space begins."""
        if not self.trials() and not self.under_way():
            self.study.enqueue_trial(start_of(self.space))
        trial = self.study.ask()
        words = suggest(trial, space)
        trial.set_user_attr("words", words)
        trial.set_user_attr("code", code_version())
        try:
            self.study.tell(trial, self.recall(words, SEEDS[0]))
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL)  # does not count as a trial
            raise

    def space_at(self, trials: int, number: int) -> Space:
        """The space of a trial by its number: ranges at whose end the best stood after each of `counts` are wider."""
        space = self.space
        for count in counts(trials):
            if count <= number:
                best = self.best(count) if count >= trials else self.finalists(count)[0]  # with one seed until then
                space = widened(space, edges(space, best))
        return space

    def edges(self, trials: int, count: int) -> list[str]:
        """The ranges at whose end the best of the first `count` trials stands, of a search of `trials`."""
        return edges(self.space_at(trials, count - 1), self.best(count))

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
