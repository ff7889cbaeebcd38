"""Tuning with equal effort: each arm's settings in a world and at a budget, from as many Optuna trials.

A search is one arm in one world at one budget: the words of a command line. Its trials are runs on a tuning seed; the
best few are run again on two more seeds, and the best mean wins. All is kept in a journal file, so that a search can be
resumed, and shared by several processes.
"""

import json
import shlex
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
from memlayers.studies.files import quote_paths
from memlayers.studies.rates import table_of
from memlayers.studies.space import Space, edges, space_of, start_of, suggest, widened
from memlayers.training.record import code_version

SEEDS = (11, 12, 13)  # the first for all trials, the others for finalists; no comparison uses them
FINALISTS = 4
FIXED = ("seed=", "study=", "results=", "logger", "progress=", "training.probes=", "training.steps=", "rates.")
DEAD = timedelta(hours=1)  # a trial that runs longer counts as that of a killed process

HEAD = """# Settings of each arm at each budget that was searched, as words of a command; recall on three tuning seeds.
# Written by `python scripts/tune.py --commit` from the trials in results/tune/.
"""


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

    def trials(self) -> list[FrozenTrial]:
        """The completed trials."""
        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])

    def under_way(self) -> int:
        """The number of trials that any process is running."""
        running = self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return sum(datetime.now() - (trial.datetime_start or datetime.min) < DEAD for trial in running)

    def step(self, most: int) -> bool:
        """Run one more trial, of at most `most`, or a finalist on one more seed; False if nothing is left to do."""
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
                self.study.tell(trial, state=TrialState.FAIL)  # does not count as a trial
                raise
            return True
        for finalist in self.finalists():
            for seed in SEEDS[1:]:
                if str(seed) not in self.again(finalist):
                    self.store(finalist, seed, self.recall(finalist.user_attrs["words"], seed))
                    return True
        return False

    def space_for(self, most: int) -> Space:
        """The space of a trial: the last quarter of trials widens ranges of which the best so far is at an end."""
        first = self.trials()[: 3 * most // 4]
        if len(first) < 3 * most // 4:
            return self.space
        return widened(self.space, edges(self.space, max(first, key=lambda trial: trial.value or 0.0)))

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

    def finalists(self) -> list[FrozenTrial]:
        """The trials with the best recall."""
        ended = [trial for trial in self.trials() if trial.value is not None]
        return sorted(ended, key=lambda trial: (-trial.value, trial.number))[:FINALISTS]  # type: ignore[operator]

    def is_decided(self) -> bool:
        """Whether every finalist has run on all seeds."""
        return all(len(self.again(trial)) == len(SEEDS) - 1 for trial in self.finalists())

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

    def best(self) -> FrozenTrial:
        """The finalist with the best mean over all tuning seeds."""
        return max(self.finalists(), key=self.mean)

    def entry(self) -> dict[str, Any]:
        """The entry of the best trial for conf/rates/."""
        match, exposures = self.config.match, self.config.training.exposures
        return {
            "budget": {"times": match.times, "exposures": exposures},
            "recall": round(self.mean(self.best()), 4),
            "words": self.best().user_attrs["words"],
        }

    def lines(self) -> list[dict[str, Any]]:
        """All trials, as lines of results/tune/WORLD.jsonl."""
        return [
            {
                "search": shlex.join(self.words),
                "trial": trial.number,
                "words": trial.user_attrs["words"],
                "code": trial.user_attrs.get("code"),
                "recall": {str(SEEDS[0]): trial.value} | self.again(trial),
            }
            for trial in self.trials()
        ]


def commit(folder: Path, results: Path, rates: Path) -> tuple[list[Path], list[str]]:
    """Write the finished searches of a folder: trials to results/WORLD.jsonl, as sorted lines, and the best of each arm
    and budget to rates/WORLD.yaml, in place of what is there. Returns the written files, and the searches that were
    left out, as they have fewer trials than others in their world, or finalists that have not run on all seeds. Raises
    ValueError for a folder without searches.
    """
    names = optuna.get_all_study_names(storage_in(folder)) if folder.is_dir() else []
    begun = [Search(shlex.split(name), folder) for name in names]
    searches = [search for search in begun if search.trials()]
    if not searches:
        raise ValueError(f"{folder}: no search there; accepted: after python scripts/tune.py arm=memory")
    written, left_out = [], []
    for world in sorted({search.config.rates.world or "" for search in searches}):
        ours = [search for search in searches if search.config.rates.world == world]
        most = max(len(search.trials()) for search in ours)
        decided = [search for search in ours if len(search.trials()) == most and search.is_decided()]
        left_out += [shlex.join(search.words) for search in ours if search not in decided]
        taken = {shlex.join(search.words) for search in decided}
        old = path.read_text().splitlines() if (path := results / f"{world}.jsonl").is_file() else []
        kept = [line for line in old if json.loads(line)["search"] not in taken]
        lines = {json.dumps(line, sort_keys=True) for search in decided for line in search.lines()}
        results.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(sorted(lines.union(kept))) + "\n")
        table = dict(table_of(world))
        for search in decided:
            entry, arm = search.entry(), str(search.config.rates.arm)
            searched = [other for other in table.get(arm, []) if "recall" in other]  # drops entries set by hand
            others = [other for other in searched if other["budget"] != entry["budget"]]
            table[arm] = sorted([*others, entry], key=lambda line: sorted(line["budget"].items()))
        target = rates / f"{world}.yaml"
        target.write_text(HEAD + OmegaConf.to_yaml(dict(sorted(table.items()))))
        written += [path, target]
    return written, left_out
