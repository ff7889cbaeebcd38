"""conf/rates/ is what the committed trials say: as many for each arm, more only in wider ranges, and each best."""

import json
import statistics
from pathlib import Path

import pytest
from commands import one
from omegaconf import OmegaConf

from memlayers.studies.files import CONF
from memlayers.studies.search import FINALISTS, SEEDS, stops

# Begun at the best of 24 trials at 24 exposures, and cut to 12 an arm (LOG.md): the one search with fewer than 24.
SHORT = ("biographies_prose", "training.exposures=16")
TRIALS = sorted((Path(__file__).resolve().parent.parent / "results" / "tune").glob("*.jsonl"))


def is_short(world: str, search: str) -> bool:
    return world == SHORT[0] and SHORT[1] in search.split()


@pytest.mark.parametrize("path", TRIALS, ids=lambda path: path.stem)
def test_settings_are_those_of_the_best_finalist_of_as_many_trials_for_each_arm(path):
    searches: dict[str, list[dict]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        searches.setdefault(line["search"], []).append(line)
    short = {len(trials) for search, trials in searches.items() if is_short(path.stem, search)}
    others = {len(trials) for search, trials in searches.items() if not is_short(path.stem, search)}
    assert short <= {12} and others <= set(stops(min(others))) and min(others) >= 24
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
