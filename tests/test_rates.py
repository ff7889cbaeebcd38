"""Tuned settings: words of the nearest budget before a command's own; conf/rates/ and tables made up for a test."""

import math
from contextlib import nullcontext

import pytest
from commands import ARMS
from hydra import compose
from omegaconf import OmegaConf
from stubs import leaves

from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.config.model import PLACES
from memlayers.studies import rates
from memlayers.studies.cli import execute, jobs_from
from memlayers.studies.compose import compose_one, composing
from memlayers.studies.files import CONF

BUDGETS = [(1, 4), (1, 16), (4, 4), (0.5, 64)]  # times, exposures
TABLES = {
    "atlas_readings": {
        "dense": [
            {
                "budget": {"times": times, "exposures": shown},
                "words": [f"optim.lr=0.0{index + 1}", "optim.muon_lr=0.003", "match.spend=depth", "model.gated=false"],
            }
            for index, (times, shown) in enumerate(BUDGETS)
        ],
        "memory": [
            {
                "budget": {"times": 1, "exposures": 16},
                "words": ["optim.lr=0.05", "values=lazy_adam", "optim.values.lr=0.7", "extra@model.before=short_conv"],
            }
        ],
        "ngram": [{"budget": {"times": 1, "exposures": 16}, "words": ["optim.lr=0.06", "values=sgd"]}],
    },
    "atlas_airports": {"dense": [{"budget": {"times": 1, "exposures": 16}, "words": ["optim.lr=0.07"]}]},
}


@pytest.fixture
def tables(monkeypatch) -> None:
    monkeypatch.setattr(rates, "table_of", lambda world: TABLES.get(world, {}))


def job(*words: str) -> RunConfig:
    """Composed anew, unlike commands.one, as the tables change."""
    (found,) = jobs_from(list(words))
    return found


# --------------------------------------------------------------------------- which words


@pytest.mark.parametrize("times", [0.3, 1.9, 2.1, 30])
@pytest.mark.parametrize("shown", [0.5, 7.9, 8.1, 300])
def test_the_budget_is_the_nearest_in_doublings(tables, times, shown):
    far = [abs(math.log2(times / own)) + abs(math.log2(shown / often)) for own, often in BUDGETS]
    with composing():
        found = compose_one(["arm=dense", f"match.times={times}", f"training.exposures={shown}"])
    assert found.optim.lr == pytest.approx(0.01 * (1 + far.index(min(far))))
    assert (found.optim.muon_lr, found.match.spend, found.model.gated) == (0.003, "depth", False)


def test_of_budgets_as_near_it_is_that_of_less_compute_a_token_and_then_of_fewer_exposures(tables):
    assert job("arm=dense_2x", "training.exposures=4").optim.lr == 0.01
    assert job("arm=dense", "training.exposures=8").optim.lr == 0.01
    assert job("arm=dense_2x", "training.exposures=8").optim.lr == 0.01


def test_training_longer_counts_as_more_exposures(tables):
    longer = job("arm=dense", "match.times=4", "match.spend=longer", "training.exposures=4")
    assert longer.optim.lr == 0.02 and longer.match.spend == "longer"
    assert job("arm=dense_4x", "training.exposures=4").optim.lr == 0.03


def test_words_of_the_command_win(tables):
    given = job("arm=dense", "optim.lr=1", "match.spend=width")
    assert (given.optim.lr, given.match.spend, given.optim.muon_lr) == (1.0, "width", 0.003)
    assert job("arm=dense", "optim.muon_lr=null").optim.muon_lr is None
    bare = job("arm=memory", "extra@model.before=ngram")
    assert type(bare.model.before).__name__ == "NGram" and bare.optim.values.lr == 0.7


def test_a_rule_that_the_command_names_has_its_own_settings(tables):
    tuned, named, rate = (job("arm=memory", *words) for words in ([], ["values=sgd"], ["optim.values.lr=3"]))
    assert (type(tuned.optim.values).__name__, tuned.optim.values.lr) == ("LazyAdam", 0.7)
    with composing():
        own = compose_one(["values=sgd", "rates.arm=null"])
    assert named.optim.values == own.optim.values and named.optim.lr == 0.05
    assert (type(rate.optim.values).__name__, rate.optim.values.lr) == ("LazyAdam", 3.0)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm not in ("ngram", "memory")])
def test_an_arm_that_was_never_searched_has_those_of_its_kind(tables, arm):
    found = job(f"arm={arm}", "training.exposures=16")
    tabled = any(hasattr(layer, "pool") for layer in (found.model.ffn, *(getattr(found.model, p) for p in PLACES)))
    if found.match.times <= 1:
        assert found.optim.lr == (0.05 if tabled else 0.02)
    assert (found.optim.muon_lr is None) == tabled == (type(found.optim.values).__name__ == "LazyAdam")
    assert job("arm=ngram").optim.lr == 0.06


def test_of_the_words_of_its_kind_an_arm_leaves_out_what_its_file_says(monkeypatch):
    """UltraMemV2's values fall, whatever memory's do."""
    words = ["optim.lr=0.05", "optim.values.schedule.shape=constant"]
    entry = {"budget": {"times": 1, "exposures": 16}, "words": words}
    monkeypatch.setattr(rates, "table_of", lambda world: {"memory": [entry]})
    shapes = {arm: job(f"arm={arm}").optim.values.schedule.shape for arm in ("memory", "peer", "ultramem_v2")}
    assert shapes == {"memory": "constant", "peer": "constant", "ultramem_v2": "linear"}
    assert job("arm=ultramem_v2").optim.lr == 0.05


def test_the_settings_of_an_arm_that_is_not_there_are_refused(tables):
    wanted = r"^rates.arm=memroy is not tuned; accepted: [^\n]*memory[^\n]*, or null$"
    with composing(), pytest.raises(ValueError, match=wanted):
        compose_one(["arm=memory", "rates.arm=memroy"])


@pytest.mark.parametrize(("named", "is_known"), [("moe", True), ("mao", False)])
def test_a_file_may_name_an_arm_that_is_tuned_in_another_world_only(monkeypatch, named, is_known):
    monkeypatch.setattr(rates, "tuned_somewhere", lambda: {"dense", "moe"})
    monkeypatch.setattr(rates, "table_of", lambda world: {"dense": []})
    with composing():
        config = compose("train", ["arm=dense"])
    config.rates.arm = named  # as conf/arm/NAME.yaml sets it
    wanted = r"^rates.arm=mao is not tuned; accepted: dense, moe, or null$"
    with nullcontext() if is_known else pytest.raises(ValueError, match=wanted):
        assert rates.tuned_words(config, ["arm=dense"]) == []


def test_without_an_arm_or_a_world_or_a_file_nothing_is_tuned(tables):
    plain = job("arm=dense", "rates.arm=null")
    for words in (["rates.world=null"], ["rates.world=nowhere"]):
        other = job("arm=dense", *words)
        assert digest(other) == digest(plain) and other.optim == plain.optim
    assert plain.optim.muon_lr is None and plain.model.gated and plain.match.spend is None
    assert digest(job("arm=dense", "rates.arm=null")) != digest(job("arm=dense"))


def test_the_table_of_another_world_brings_its_words_and_nothing_else(tables):
    other = job("arm=dense", "rates.world=atlas_airports")
    plain = job("arm=dense", "rates.arm=null")
    different = {key for key, value in leaves(plain).items() if leaves(other)[key] != value}
    assert different == {"optim.lr", "rates.arm", "rates.world"} and other.optim.lr == 0.07


def test_how_compute_is_spent_is_left_out_where_none_is_matched(tables):
    assert job("arm=dense").match.spend == "depth"
    assert job("arm=dense_params").match.spend is None and job("arm=dense_params").optim.muon_lr == 0.003
    assert job("arm=dense", "match.by=params").match.spend is None
    assert job("arm=dense", "match.reference=null").match.spend is None


def test_each_job_of_a_sweep_has_its_own(tables):
    jobs = jobs_from(["-m", "arm=dense,ngram", "training.exposures=4,16", "seed=0,1"])
    rate = {("dense", 4.0): 0.01, ("dense", 16.0): 0.02, ("ngram", 4.0): 0.06, ("ngram", 16.0): 0.06}
    assert [one.optim.lr for one in jobs] == [rate[one.arm, one.training.exposures] for one in jobs]
    assert all(set(one.axes) == {"arm", "training.exposures", "seed"} for one in jobs)


def test_settings_by_hand_are_the_same_experiment_as_tuned_ones(tables):
    tuned, words = job("arm=memory"), TABLES["atlas_readings"]["memory"][0]["words"]
    assert digest(job("arm=memory", "rates.arm=null", *words)) == digest(tuned)
    assert digest(job("arm=memory", *words)) == digest(tuned)


@pytest.mark.parametrize("line", ["training.exposures=0", "training.exposures=-1", "match.times=0", "match.times=-2"])
def test_a_budget_that_cannot_be_is_answered_with_what_can(tables, line):
    with pytest.raises(ValueError, match=rf"^{line.partition('.')[0]}\.[a-z]+=-?[0-9.]+ [^\n]*accepted: "):
        job(line)


# --------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("words", [["arm=dense"], ["arm=memory"], ["arm=dense", "optim.betas=[0.5,0.6]"]], ids=" ".join)
def test_cfg_job_shows_what_a_run_would_have(tables, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "--cfg", "job", *words])
    assert execute(["--cfg", "job", *words]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    wanted = job(*words)
    assert (shown.optim.lr, shown.optim.muon_lr) == (wanted.optim.lr, wanted.optim.muon_lr)
    assert shown.model.gated == wanted.model.gated and shown.rates.arm == wanted.arm
    assert (shown.model.before is None) == (wanted.model.before is None)


# --------------------------------------------------------------------------- conf/rates/

FILES = sorted(path.stem for path in (CONF / "rates").glob("*.yaml"))


@pytest.mark.parametrize("world", FILES)
def test_every_entry_is_what_its_arm_begins_with_at_its_budget(world):
    table = OmegaConf.to_container(OmegaConf.load(CONF / "rates" / f"{world}.yaml"))
    assert {"dense", "memory"} <= set(table) <= set(ARMS)
    with composing():
        for arm, entries in table.items():
            budgets = [tuple(sorted(entry["budget"].items())) for entry in entries]
            assert len(set(budgets)) == len(budgets) > 0
            for entry in entries:
                budget = entry["budget"]
                words = [f"world={world}", f"arm={arm}", f"match.times={budget['times']}"]
                words.append(f"training.exposures={budget['exposures']}")
                by_hand = compose_one([*words, "rates.arm=null", *entry["words"]])
                assert digest(compose_one(words)) == digest(by_hand)
