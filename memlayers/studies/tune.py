"""Equal effort: each arm's settings in a world and at a budget, from the same number of Optuna trials.

A search is one arm in one world at one budget: the words of a command line. Its trials are runs on a tuning seed; the
best few are run again on two more, and the winner is the best mean. All of it is kept in a journal file, so that a
search goes on where it was stopped, and several processes share it.
"""

import json
import statistics
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from memlayers.studies.compose import compose_one, composing
from memlayers.studies.rates import table_of
from memlayers.studies.space import Space, edges, space_of, start_of, suggest, widened
from memlayers.training.record import code_version

SEEDS = (11, 12, 13)  # the first for every trial, the others for finalists; comparisons use none of them
FINALISTS = 4
DEAD = timedelta(hours=1)  # a trial that has not ended by then belongs to a process that was killed

HEAD = """# Settings of each arm at each budget that was searched, as words of a command; recall on three tuning seeds.
# Written by `python scripts/tune.py --commit` from the trials in results/tune/.
"""


def storage_in(folder: Path) -> JournalStorage:
    """The journal of a folder, which several processes may write."""
    file = str(folder / "trials.journal")
    return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))


class Search:
    """One arm in one world at one budget, named by the words that say so."""

    def __init__(self, words: list[str], folder: Path):
        self.words, self.folder = sorted(words), folder
        folder.mkdir(parents=True, exist_ok=True)
        with composing():
            self.config = compose_one(self.words)
            self.space = space_of(compose_one([*self.words, "rates.arm=null"]))  # not from what was found before
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(n_startup_trials=8, multivariate=True, group=True, constant_liar=True)
        self.study = optuna.create_study(
            storage=storage_in(folder),
            sampler=sampler,
            study_name=" ".join(self.words),
            direction="maximize",
            load_if_exists=True,
        )

    def trials(self) -> list[FrozenTrial]:
        """Those that ended."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    def under_way(self) -> int:
        """How many are run by some process."""
        running = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return sum(datetime.now() - (trial.datetime_start or datetime.min) < DEAD for trial in running)

    def step(self, most: int) -> bool:
        """Run one more trial, or a finalist on one more seed; False where nothing is left to do."""
        if len(self.trials()) + self.under_way() < most:
            if not self.trials() and not self.under_way():
                self.study.enqueue_trial(start_of(self.space))
            trial = self.study.ask()
            words = suggest(trial, self.space_for(most))
            trial.set_user_attr("words", words)
            trial.set_user_attr("code", code_version())
            try:
                self.study.tell(trial, self.recall(words, SEEDS[0]))
            except BaseException:
                self.study.tell(trial, state=TrialState.FAIL)  # and so it does not count
                raise
            return True
        for finalist in self.finalists():
            for seed in SEEDS[1:]:
                if str(seed) not in self.again(finalist):
                    self.store(finalist, seed, self.recall(finalist.user_attrs["words"], seed))
                    return True
        return False

    def space_for(self, most: int) -> Space:
        """For the last quarter of the trials, ranges at whose end the best of the others stands are wider."""
        first = self.trials()[: 3 * most // 4]
        if len(first) < 3 * most // 4:
            return self.space
        return widened(self.space, edges(self.space, max(first, key=lambda trial: trial.value or 0.0)))

    def recall(self, words: list[str], seed: int) -> float:
        """Of a run with these words, in words that training never used if the world has any; 0 where it diverged."""
        from memlayers.training.run import run

        own = [f"seed={seed}", "study=trials", f"results={self.folder}", "logger=none", "progress=none"]
        own += ["training.probes=1", "rates.arm=null"]
        with composing():
            config = compose_one([*self.words, *words, *own])
        try:
            recall = run(config)["recall"]
            return float(recall["exact"] if recall["held_out"] is None else recall["held_out"])
        except FloatingPointError:
            return 0.0

    def finalists(self) -> list[FrozenTrial]:
        ended = [trial for trial in self.trials() if trial.value is not None]
        return sorted(ended, key=lambda trial: (-trial.value, trial.number))[:FINALISTS]  # type: ignore[operator]

    def is_decided(self) -> bool:
        """Whether every finalist has run on all seeds."""
        return all(len(self.again(trial)) == len(SEEDS) - 1 for trial in self.finalists())

    def again(self, trial: FrozenTrial) -> dict[str, float]:
        """Recall of a finalist on further seeds."""
        found: dict[str, float] = self.study.user_attrs.get(f"again {trial.number}", {})
        return found

    def store(self, trial: FrozenTrial, seed: int, recall: float) -> None:
        self.study.set_user_attr(f"again {trial.number}", self.again(trial) | {str(seed): recall})

    def mean(self, trial: FrozenTrial) -> float:
        assert trial.value is not None
        return statistics.mean([trial.value, *self.again(trial).values()])

    def best(self) -> FrozenTrial:
        """The finalist of the best mean over all tuning seeds."""
        return max(self.finalists(), key=self.mean)

    def entry(self) -> dict[str, Any]:
        """Its line in conf/rates/."""
        match, showings = self.config.match, self.config.training.exposures
        best = self.best()
        return {
            "budget": {"times": match.times, "exposures": showings},
            "recall": round(self.mean(best), 4),
            "words": best.user_attrs["words"],
        }

    def lines(self) -> list[dict[str, Any]]:
        """Every trial as a line of the record."""
        return [
            {
                "search": " ".join(self.words),
                "trial": trial.number,
                "words": trial.user_attrs["words"],
                "code": trial.user_attrs.get("code"),
                "recall": {str(SEEDS[0]): trial.value} | self.again(trial),
            }
            for trial in self.trials()
        ]


def commit(folder: Path, results: Path, rates: Path) -> tuple[list[Path], list[str]]:
    """Take the finished searches of a folder: trials into results/WORLD.jsonl, a sorted line each, and the best of each
    arm and budget into rates/WORLD.yaml, where it replaces what is there. Returns what was written, and the searches
    that were left out: with fewer trials than others in their world, or finalists still to be run again.
    Raises ValueError for a folder without any.
    """
    names = optuna.get_all_study_names(storage_in(folder)) if folder.is_dir() else []
    begun = [Search(name.split(), folder) for name in names]
    searches = [one for one in begun if one.trials()]
    if not searches:
        raise ValueError(f"{folder}: no search there; accepted: after python scripts/tune.py arm=memory")
    written, left_out = [], []
    for world in sorted({one.config.rates.world or "" for one in searches}):
        ours = [one for one in searches if one.config.rates.world == world]
        most = max(len(one.trials()) for one in ours)
        own = [one for one in ours if len(one.trials()) == most and one.is_decided()]
        left_out += [" ".join(one.words) for one in ours if one not in own]
        taken = {" ".join(one.words) for one in own}
        path = results / f"{world}.jsonl"
        old = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in old if json.loads(line)["search"] not in taken]
        lines = [json.dumps(line, sort_keys=True) for one in own for line in one.lines()]
        results.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sorted({*kept, *lines})) + "\n")
        table = dict(table_of(world))
        for one in own:
            entry, arm = one.entry(), str(one.config.rates.arm)
            searched = [other for other in table.get(arm, []) if "recall" in other]  # what was found by hand goes
            others = [other for other in searched if other["budget"] != entry["budget"]]
            table[arm] = sorted([*others, entry], key=lambda line: sorted(line["budget"].items()))
        target = rates / f"{world}.yaml"
        target.write_text(HEAD + OmegaConf.to_yaml(dict(sorted(table.items()))))
        written += [path, target]
    return written, left_out
