"""What a trial runs, and what a folder of searches becomes in results/tune/ and conf/rates/."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from searches import DENSE, MOST, finish, pretend, rate_in

from memlayers.config import RunConfig
from memlayers.studies import search as searching
from memlayers.studies.search import SEEDS, Search
from memlayers.studies.space import start_of
from memlayers.studies.tune import commit, entry_of, lines_of, resume

# --------------------------------------------------------------------------- a trial


def test_a_trial_is_a_run_of_the_search_with_its_words_and_nothing_tuned(monkeypatch, tmp_path):
    ran: list[RunConfig] = []
    held_out = None

    def run(config: RunConfig) -> dict[str, Any]:
        ran.append(config)
        return {"recall": {"exact": 0.25, "held_out": held_out}}

    monkeypatch.setattr("memlayers.training.run.run", run)
    search = Search(DENSE, tmp_path)
    assert search.recall(["optim.lr=0.02", "match.spend=depth"], 12) == 0.25
    (config,) = ran
    held_out = 0.125  # of a world of prose
    assert search.recall([], 12) == 0.125
    assert (config.arm, config.training.exposures, config.optim.lr, config.match.spend) == ("dense", 4.0, 0.02, "depth")
    assert (config.seed, config.results, config.study) == (12, str(tmp_path), "trials")
    assert config.rates.arm is None and config.optim.muon_lr is None and config.logger is None
    assert not set(SEEDS) & set(range(5))


def test_a_run_that_diverged_counts_as_no_recall(monkeypatch, tmp_path):
    def diverged(config: RunConfig) -> dict[str, Any]:
        raise FloatingPointError("the loss is nan at step 3: lower optim.lr")

    monkeypatch.setattr("memlayers.training.run.run", diverged)
    search = Search(DENSE, tmp_path)
    assert search.recall([], 11) == 0.0
    assert search.step(MOST) and search.trials()[0].value == 0.0


@pytest.mark.slow
def test_a_search_of_small_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(searching, "SATURATED", -1.0)  # no trials beyond those asked for
    words = ["arm=memory", "world.num_subjects=60", "training.batch_tokens=128", "training.exposures=2", "num_keys=16"]
    search = finish(Search(words, tmp_path), 4)
    assert all(0 <= search.mean(trial) <= 1 and len(search.again(trial)) == 2 for trial in search.trials())
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert len(records) == 4 * len(SEEDS) and {record["seed"] for record in records} == set(SEEDS)
    assert all(record["status"] == "ok" or "FloatingPoint" in record["error"] for record in records)


# --------------------------------------------------------------------------- taken into the project

OLD = {"dense": [{"budget": {"times": 1.0, "exposures": 4.0}, "words": ["optim.lr=7"]}]}
OLD["dense"].append({"budget": {"times": 4.0, "exposures": 64.0}, "words": ["optim.lr=8"], "recall": 0.5})
OLD["dense"].append({"budget": {"times": 9.0, "exposures": 64.0}, "words": ["optim.lr=6"]})  # by hand
OLD["ngram"] = [{"budget": {"times": 1.0, "exposures": 1.0}, "words": ["optim.lr=9"]}]


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_of_each_search_replaces_what_is_there_and_nothing_else_is_touched(monkeypatch, tmp_path):
    pretend(monkeypatch)
    searches = [finish(Search(words, tmp_path)) for words in (DENSE, ["arm=memory"], ["arm=dense_4x"])]
    results, rates = tmp_path / "results", tmp_path
    results.mkdir()
    OmegaConf.save(OLD, rates / "atlas_readings.yaml")
    other = {"search": "arm=ngram", "trial": 0, "words": ["optim.lr=9"], "recall": {"11": 0.1}}
    (results / "atlas_readings.jsonl").write_text(json.dumps(other, sort_keys=True) + "\n")
    written, left_out = commit(tmp_path, results, rates)
    assert not left_out and written == [results / "atlas_readings.jsonl", rates / "atlas_readings.yaml"]
    lines = lines_in(written[0])
    assert len(lines) == 3 * MOST + 1 and other in lines
    assert all(line in lines for search in searches for line in lines_of(search))
    table = OmegaConf.to_container(OmegaConf.load(written[1]))
    dense, memory, wide = searches
    assert list(table) == ["dense", "memory", "ngram"] and table["ngram"] == OLD["ngram"]
    assert table["memory"] == [entry_of(memory)]
    assert [entry["budget"]["exposures"] for entry in table["dense"]] == [4.0, 16.0, 64.0]
    assert table["dense"] == [entry_of(dense), entry_of(wide), OLD["dense"][1]]
    before = [path.read_text() for path in written]
    assert commit(tmp_path, results, rates) == (written, []) and [path.read_text() for path in written] == before


def test_worlds_have_files_of_their_own(monkeypatch, tmp_path):
    pretend(monkeypatch)
    for world in ("atlas_airports", "biographies"):
        finish(Search(["arm=dense", f"world={world}"], tmp_path))
    written, _ = commit(tmp_path, tmp_path / "results", tmp_path)
    assert [path.name for path in written] == [
        f"{world}{ending}" for world in ("atlas_airports", "biographies") for ending in (".jsonl", ".yaml")
    ]
    assert all(len(lines_in(path)) == MOST for path in written if path.suffix == ".jsonl")


def test_a_world_that_has_the_settings_of_another_leaves_those_as_they_are(monkeypatch, tmp_path):
    pretend(monkeypatch)
    search = finish(Search(["arm=dense", "world=pictures"], tmp_path))
    assert search.config.rates.world == "biographies"
    written, _ = commit(tmp_path, tmp_path / "results", tmp_path)
    assert [path.name for path in written] == ["pictures.jsonl", "pictures.yaml"]
    assert OmegaConf.load(written[1]) == {"dense": [entry_of(search)]}


def test_searches_that_are_not_finished_are_left_out(monkeypatch, tmp_path):
    pretend(monkeypatch)
    finish(Search(["arm=memory"], tmp_path), MOST + 1)
    finish(Search(DENSE, tmp_path))  # fewer trials
    undecided = Search(["arm=ngram"], tmp_path)
    while len(undecided.trials()) < MOST + 1:
        undecided.step(MOST + 1)
    written, left_out = commit(tmp_path, tmp_path / "results", tmp_path)
    assert sorted(left_out) == ["arm=dense training.exposures=4", "arm=ngram"]
    assert {line["search"] for line in lines_in(written[0])} == {"arm=memory"}


def test_a_search_with_a_space_in_a_word_can_be_committed(monkeypatch, tmp_path):
    pretend(monkeypatch)
    words = ["arm=memory", "world=biographies", "world.name_parts=[40, 40, 40]"]
    finish(Search(words, tmp_path))
    (trials, _), left_out = commit(tmp_path, tmp_path / "results", tmp_path)
    assert not left_out and len(lines_in(trials)) == MOST


def test_without_a_trial_there_is_nothing_to_commit(tmp_path):
    Search(DENSE, tmp_path / "begun")
    for name in ("begun", "nowhere"):
        with pytest.raises(ValueError, match=f"{name}: no search there; accepted: after python"):
            commit(tmp_path / name, tmp_path / "results", tmp_path)
    assert not (tmp_path / "results").exists()


# --------------------------------------------------------------------------- and back


def test_committed_trials_are_those_of_a_search_that_is_resumed(monkeypatch, tmp_path):
    calls = pretend(monkeypatch)
    searches = [finish(Search(words, tmp_path / "there")) for words in (DENSE, ["arm=memory"])]
    commit(tmp_path / "there", tmp_path / "results", tmp_path)
    ran = len(calls)
    for before in searches:
        search = Search(before.words, tmp_path / "here")
        with monkeypatch.context() as patched:
            patched.setattr(Search, "store", interrupted)
            with pytest.raises(KeyboardInterrupt):
                resume(search, tmp_path / "results")
        for added in (0, 0):
            assert resume(search, tmp_path / "results") == added
            assert lines_of(search) == lines_of(before)
        assert search.best().params.keys() == before.best().params.keys()
        assert not search.step(MOST) and len(calls) == ran
    finish(search, MOST + 1)
    assert calls[ran][2] == SEEDS[0] and len(search.trials()) == MOST + 1


def test_a_search_that_was_resumed_and_not_gone_on_with_changes_nothing(monkeypatch, tmp_path):
    pretend(monkeypatch)
    finish(Search(DENSE, tmp_path / "there"))
    before = [path.read_text() for path in commit(tmp_path / "there", tmp_path, tmp_path)[0]]
    resume(Search(DENSE, tmp_path / "here"), tmp_path)
    assert commit(tmp_path / "here", tmp_path, tmp_path) == ([], ["arm=dense training.exposures=4"])
    assert [(tmp_path / f"atlas_readings.{kind}").read_text() for kind in ("jsonl", "yaml")] == before


def test_a_search_that_went_on_in_wider_ranges_is_finished_when_it_is_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(Search, "recall", lambda self, words, _: rate_in(words) / 99)  # the larger, the better
    before = Search(DENSE, tmp_path / "there")
    before.study.enqueue_trial(start_of(before.space) | {"optim.lr": before.space["optim.lr"]["high"]})
    assert len(finish(before, 8).trials()) == 12
    commit(tmp_path / "there", tmp_path, tmp_path)
    after = Search(DENSE, tmp_path / "here")
    resume(after, tmp_path)
    assert lines_of(after) == lines_of(before) and after.space_after(12) == before.space_after(12)
    assert after.next_run(8) is None


def interrupted(search: Search, trial: object, seed: int, recall: float) -> None:
    raise KeyboardInterrupt


def test_a_search_without_committed_trials_cannot_be_resumed(tmp_path):
    search = Search(DENSE, tmp_path)
    with pytest.raises(ValueError, match=r"no trials of arm=dense training.exposures=4 in results/tune/; accepted: a"):
        resume(search, tmp_path / "results")
    assert not search.trials()
