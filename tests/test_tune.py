"""Searches: as many trials for each arm, finalists on further seeds, and going on where one was stopped."""

import math
from datetime import timedelta

import pytest
from optuna.trial import FixedTrial
from searches import DENSE, MOST, Call, finish, made_up, pretend, rate_in

from memlayers.studies import rates
from memlayers.studies import search as module
from memlayers.studies.search import FINALISTS, SEEDS, Search
from memlayers.studies.space import edges, start_of, suggest
from memlayers.studies.tune import entry_of, lines_of


@pytest.fixture
def calls(monkeypatch) -> list[Call]:
    return pretend(monkeypatch)


def answered(monkeypatch, *by_seed: list[float]) -> None:
    """Recall of each trial in order, on each of the seeds."""
    order: list[str] = []

    def recall(search: Search, words: list[str], seed: int) -> float:
        name = " ".join(words)
        if name not in order:
            order.append(name)
        return by_seed[SEEDS.index(seed)][order.index(name)]

    monkeypatch.setattr(Search, "recall", recall)
    monkeypatch.setattr(module, "SATURATED", 0.0)  # no search goes on beyond its trials


def test_a_search_begins_at_the_start_and_runs_the_best_again_on_further_seeds(calls, tmp_path):
    search = finish(Search(DENSE, tmp_path))
    assert search.words == sorted(DENSE) and search.study.study_name == "arm=dense training.exposures=4"
    assert calls[0][1] == tuple(suggest(FixedTrial(start_of(search.space)), search.space))
    assert [seed for _, _, seed in calls[:MOST]] == [SEEDS[0]] * MOST
    ranked = sorted(range(MOST), key=lambda index: -made_up(list(calls[index][1]), SEEDS[0]))[:FINALISTS]
    again = [(calls[0][0], calls[index][1], seed) for index in ranked for seed in SEEDS[1:]]
    assert calls[MOST:] == again and len(set(calls)) == len(calls)
    assert [trial.number for trial in search.finalists()] == ranked
    assert not search.step(MOST) and len(calls) == MOST + len(again)


def test_a_search_begins_where_its_space_does_whatever_was_found_at_another_budget(tmp_path, monkeypatch):
    found = {"memory": [{"budget": {"times": 1.0, "exposures": 24.0}, "words": ["model.blocks=[3]"]}]}
    monkeypatch.setattr(rates, "table_of", lambda _: found)
    search = Search(["arm=memory", "world=biographies_prose", "training.exposures=16"], tmp_path)
    assert search.config.model.blocks == [3]
    assert search.space["model.blocks"]["start"] == "[2]"


@pytest.mark.parametrize("stops", [[1, 2], [5, 6, 7, 8], [6, 7], [13, 14]])
def test_a_search_goes_on_where_it_was_stopped_and_repeats_nothing(calls, tmp_path, stops):
    for stop in stops:
        search = Search(DENSE, tmp_path)
        while len(calls) < stop:
            assert search.step(MOST)
    finish(Search(DENSE[::-1], tmp_path))
    assert len(set(calls)) == len(calls) == MOST + 2 * FINALISTS
    assert [trial.number for trial in Search(DENSE, tmp_path).trials()] == list(range(MOST))


def test_more_trials_are_added_to_those_that_are_there(calls, tmp_path):
    before = lines_of(finish(Search(DENSE, tmp_path)))
    search = finish(Search(DENSE, tmp_path), MOST + 2)
    assert len(search.trials()) == MOST + 2 and len(set(calls)) == len(calls)
    assert [line["words"] for line in lines_of(search)[:MOST]] == [line["words"] for line in before]
    assert all(set(search.again(trial)) == {str(seed) for seed in SEEDS[1:]} for trial in search.finalists())


def test_searches_in_one_folder_do_not_see_each_other(calls, tmp_path):
    first, second = finish(Search(DENSE, tmp_path)), finish(Search(["arm=memory"], tmp_path))
    assert len(first.trials()) == len(second.trials()) == MOST
    assert {name for name, _, _ in calls} == {"arm=dense training.exposures=4", "arm=memory"}
    assert set(first.space) != set(second.space)


def test_the_best_is_the_best_mean_of_the_finalists_and_not_the_best_first_seed(monkeypatch, tmp_path):
    lucky, steady = 1, 2
    first = [0.5, 0.9, 0.8, 0.7, 0.6, 0.1]
    answered(monkeypatch, first, [1.0, 0.2, *first[2:]], [1.0, 0.3, *first[2:]])
    search = finish(Search(DENSE, tmp_path))
    assert [trial.number for trial in search.finalists()] == [lucky, steady, 3, 4]
    assert search.best().number == steady and search.mean(search.best()) == pytest.approx(0.8)
    assert search.mean(search.trials()[lucky]) == pytest.approx((0.9 + 0.2 + 0.3) / 3)
    words = search.trials()[steady].user_attrs["words"]
    assert entry_of(search) == {"budget": {"times": 1.0, "exposures": 4.0}, "recall": 0.8, "words": words}
    line = lines_of(search)[steady]
    assert line["recall"] == {str(seed): 0.8 for seed in SEEDS} and line["words"] == words
    assert lines_of(search)[0]["recall"] == {str(SEEDS[0]): 0.5}


def test_of_equal_trials_the_earlier_ones_are_finalists(monkeypatch, tmp_path):
    answered(monkeypatch, *[[0.5] * MOST] * 3)
    search = finish(Search(DENSE, tmp_path))
    assert [trial.number for trial in search.finalists()] == [0, 1, 2, 3] and search.best().number == 0


def test_a_trial_that_another_process_runs_counts_until_it_is_given_up(calls, tmp_path, monkeypatch):
    Search(DENSE, tmp_path).study.ask()
    search = finish(Search(DENSE, tmp_path))
    assert len(search.trials()) == MOST - 1 and search.under_way() == 1
    monkeypatch.setattr(module, "DEAD", timedelta(0))
    finish(search)
    assert len(search.trials()) == MOST and search.under_way() == 0


def test_a_trial_that_fails_stops_the_search_and_does_not_count(calls, tmp_path, monkeypatch):
    working = Search.recall

    def broken(search: Search, words: list[str], seed: int) -> float:
        raise RuntimeError("no space left")

    monkeypatch.setattr(Search, "recall", broken)
    with pytest.raises(RuntimeError, match="no space left"):
        Search(DENSE, tmp_path).step(MOST)
    monkeypatch.setattr(Search, "recall", working)
    assert len(finish(Search(DENSE, tmp_path)).trials()) == MOST


def peak(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """Recall as if this rate were best, and nothing else mattered."""
    monkeypatch.setattr(Search, "recall", lambda self, words, _: 0.5 - abs(math.log(rate_in(words) / rate)) / 99)


@pytest.mark.parametrize(("times", "trials"), [(0.1, 8), (1, 10), (4, 12), (16, 12)])
def test_a_search_goes_on_beyond_the_end_at_which_its_best_is_at_most_twice(monkeypatch, tmp_path, times, trials):
    """The best rate is so many times the end of its range; the largest of each range is tried first."""
    search = Search(DENSE, tmp_path)
    high = search.space["optim.lr"]["high"]
    peak(monkeypatch, high * times)
    for wider, stop in enumerate([0, *module.stops(8)[:2]]):
        while len(search.trials()) < stop or search.finalist_left(stop):
            search.step(8)
        search.study.enqueue_trial(start_of(search.space) | {"optim.lr": high * min(times, 4**wider)})
        if not search.step(8):
            break
    ran = finish(search, 8).trials()
    assert len(ran) == trials and search.is_finished() and search.best().params["optim.lr"] == high * times
    assert edges(search.space_after(trials), search.best()) == (["optim.lr"] if times == 16 else [])
    for number, trial in enumerate(ran):
        wider = sum(number >= stop for stop in module.stops(8))
        assert search.space_at(8, number)["optim.lr"]["high"] == pytest.approx(high * 4**wider)
        assert trial.params["optim.lr"] <= high * 4**wider * 1.001


def test_wider_ranges_are_drawn_from(monkeypatch, tmp_path):
    search = Search(DENSE, tmp_path)
    high = search.space["optim.lr"]["high"]
    peak(monkeypatch, 8 * high)
    search.study.enqueue_trial(start_of(search.space) | {"optim.lr": high})
    rates = [trial.params["optim.lr"] for trial in finish(search, 24).trials()]
    assert max(rates[:24]) == high < 2 * high < max(rates[24:])


def test_more_trials_begin_with_ranges_as_wide_as_they_were(monkeypatch, tmp_path):
    search = Search(DENSE, tmp_path)
    high = search.space["optim.lr"]["high"]
    peak(monkeypatch, high)
    search.study.enqueue_trial(start_of(search.space) | {"optim.lr": high})
    assert len(finish(search, 8).trials()) == 10
    assert search.space_at(16, 10)["optim.lr"]["high"] == pytest.approx(4 * high)
    assert len(finish(search, 16).trials()) == 16


def test_a_trial_beyond_those_that_are_asked_for_is_best_on_all_seeds_or_not_at_all(monkeypatch, tmp_path):
    first = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.9]
    answered(monkeypatch, first, *[[*first[:-1], 0.0]] * 2)
    search = finish(Search(DENSE, tmp_path))
    while len(search.trials()) < MOST + 1:
        search.step(MOST + 1)
    assert not search.again(search.trials()[MOST])
    finish(search)
    assert search.is_finished() and search.best().number == 0


def test_what_recalls_nearly_all_is_not_searched_for_beyond_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(Search, "recall", lambda self, words, _: min(1.0, 0.98 + rate_in(words) / 10))
    search = Search(DENSE, tmp_path)
    search.study.enqueue_trial(start_of(search.space) | {"optim.lr": search.space["optim.lr"]["high"]})
    assert len(finish(search, 8).trials()) == 8 and search.mean(search.best()) > module.SATURATED
