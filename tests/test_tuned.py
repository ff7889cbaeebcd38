"""conf/rates/ is what the committed trials say: at a budget as many for each arm, and each search's best finalist."""

import json
import statistics
from pathlib import Path

import pytest
from commands import one
from omegaconf import OmegaConf

from memlayers.studies.files import CONF
from memlayers.studies.tune import FINALISTS, SEEDS

TRIALS = sorted((Path(__file__).resolve().parent.parent / "results" / "tune").glob("*.jsonl"))


@pytest.mark.parametrize("path", TRIALS, ids=lambda path: path.stem)
def test_settings_are_those_of_the_best_finalist_of_as_many_trials_for_each_arm(path):
    searches: dict[str, list[dict]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        searches.setdefault(line["search"], []).append(line)
    counts: dict[str, set[int]] = {}
    for search, trials in searches.items():
        (showings,) = [word for word in search.split() if word.startswith("training.exposures=")]
        counts.setdefault(showings, set()).add(len(trials))
    assert all(len(own) == 1 for own in counts.values()) and max(map(max, counts.values())) >= 24
    table = OmegaConf.to_container(OmegaConf.load(CONF / "rates" / f"{path.stem}.yaml"))
    for search, trials in searches.items():
        ranked = sorted(trials, key=lambda trial: (-trial["recall"][str(SEEDS[0])], trial["trial"]))[:FINALISTS]
        assert all(set(trial["recall"]) == set(map(str, SEEDS)) for trial in ranked)
        best = max(ranked, key=lambda trial: statistics.mean(trial["recall"].values()))
        run = one(*search.split())
        budget = {"times": run.match.times, "exposures": run.training.exposures}
        (entry,) = [entry for entry in table[run.rates.arm] if entry["budget"] == budget]
        assert entry["words"] == best["words"]
        assert entry["recall"] == pytest.approx(sum(best["recall"].values()) / len(SEEDS), abs=1e-4)


def test_seeds_of_the_comparison_are_not_those_of_the_search():
    assert not set(SEEDS) & set(range(10))
