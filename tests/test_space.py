"""Search spaces: what is searched for an arm, where it begins, and ranges that prove too narrow."""

import copy

import optuna
import pytest
from commands import ARMS, one
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FixedTrial, FrozenTrial, create_trial
from stubs import leaves

from memlayers.config import RunConfig
from memlayers.config.model import PLACES
from memlayers.studies.compose import compose_one, composing
from memlayers.studies.files import CONF
from memlayers.studies.space import edges, ranges, read, space_of, start_of, suggest, widened

SPACE = {
    "a": {"low": 0.01, "high": 1.0, "log": True, "start": 0.1},
    "b": {"low": 0.0, "high": 2.0, "start": 1, "most": 2.8},
    "c": {"low": 1.0, "high": 2.0, "or_null": True, "start": None},
    "d": {"choices": [True, "x", 0.5], "start": "x"},
    "e": {"choices": ["null", "y"], "start": "null"},
    "f": {"choices": {"u": {"f.g": {"low": 1, "high": 100, "log": True, "start": 5}}, "v": {}}, "start": "u"},
}


def with_words(arm: str, words: list[str]) -> RunConfig:
    with composing():
        return compose_one([f"arm={arm}", "rates.arm=null", *words])


# --------------------------------------------------------------------------- of each arm


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_is_searched_for_what_its_kind_has(arm):
    config = one(f"arm={arm}")
    space = space_of(config)
    layers = (config.model.ffn, *(getattr(config.model, place) for place in PLACES))
    tabled = any(hasattr(layer, "pool") for layer in layers)
    assert ("values" in space, "match.spend" in space) == (tabled, not tabled)
    assert {"optim.lr", "optim.muon_lr", "model.gated", "extra@model.before"} <= set(space)
    assert space["optim.muon_lr"]["start"] in ((None,) if tabled else (5e-3, 1e-2))


def test_an_arm_adds_its_own_and_what_it_changes_is_whole():
    own, others = (space_of(one(f"arm={arm}")) for arm in ("memory_plus", "memory"))
    assert own.keys() == others.keys() and {key for key in own if own[key] != others[key]} == {"values"}
    found = {path.stem for path in (CONF / "space").glob("*.yaml")}
    assert found <= {"default", "tables", "dense", "prose", "prose_tables", "prose_dense", *ARMS}


def test_in_prose_a_memory_is_also_searched_for_its_block_and_for_when_its_values_begin():
    terse, prose = (
        space_of(one("arm=memory", f"world={world}", "rates.arm=null"))
        for world in ("biographies", "biographies_prose")
    )
    assert set(prose) - set(terse) == {"model.blocks", "optim.values.schedule.warmup"}
    assert prose["model.blocks"] == {"choices": ["[0]", "[1]", "[2]", "[3]"], "start": "[2]"}
    dense, beside = (space_of(one(f"arm={arm}", "world=biographies_prose")) for arm in ("dense", "engram"))
    assert "model.blocks" not in beside and "optim.values.schedule.warmup" in beside
    assert dense["optim.lr"] == prose["optim.lr"] == beside["optim.lr"] != terse["optim.lr"]


@pytest.mark.parametrize("arm", ARMS)
def test_the_start_is_a_trial_whose_words_compose_to_where_ranges_begin(arm):
    space = space_of(one(f"arm={arm}"))
    start, trial = start_of(space), FixedTrial(start_of(space))
    run = leaves(with_words(arm, suggest(trial, space)))
    assert set(trial.distributions) == set(start)
    for name, value in start.items():
        key = name.rpartition(": ")[2]
        if key in run:
            assert run[key] == pytest.approx(value) if isinstance(value, float) else run[key] == value
    assert run["model.before"] is None and (run["optim.muon_lr"] is not None) == start["with optim.muon_lr"]


@pytest.mark.parametrize("arm", ["dense", "memory", "memory_plus", "engram"])  # a kind of space each
def test_every_choice_and_both_ends_of_every_range_compose(arm):
    space = space_of(one(f"arm={arm}"))
    for key, entry in space.items():
        for choice in entry.get("choices", ()):
            asked = {key: entry | {"start": choice}}
            words = suggest(FixedTrial(start_of(asked)), asked)
            assert (words == []) == (choice == "null")
            with_words(arm, words)
        if "low" in entry:
            for end in ("low", "high"):
                (word,) = suggest(FixedTrial(start_of({key: entry | {"start": entry[end]}})), {key: entry})
                assert leaves(with_words(arm, [word]))[key] == pytest.approx(entry[end])
            if entry.get("or_null"):
                assert suggest(FixedTrial({f"with {key}": False}), {key: entry}) == [f"{key}=null"]


def test_settings_of_a_choice_are_suggested_with_it_and_leave_no_word_otherwise():
    assert suggest(FixedTrial(start_of(SPACE)), SPACE) == ["a=0.1", "b=1", "c=null", "d=x", "f=u", "f.g=5"]
    other = start_of(SPACE) | {"with c": True, "c": 1.23456, "d": True, "e": "y", "f": "v"}
    assert suggest(FixedTrial(other), SPACE) == ["a=0.1", "b=1", "c=1.235", "d=true", "e=y", "f=v"]


@pytest.mark.parametrize(
    "words", [*([f"arm={arm}"] for arm in ARMS), ["arm=memory", "world=biographies_prose"]], ids=str
)
def test_a_trial_is_read_from_its_words(words):
    with composing():
        space = space_of(compose_one([*words, "rates.arm=null"]))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(10):
        if number == 0:
            study.enqueue_trial(start_of(space))
        trial = study.ask()
        parameters, kinds = read(suggest(trial, space), space, {})
        assert parameters.keys() == kinds.keys() == trial.params.keys()
        for name, value in trial.params.items():
            assert parameters[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
            assert type(kinds[name]) is type(trial.distributions[name])
    high = ranges(space)["optim.lr"]["high"]
    parameters, kinds = read([f"optim.lr={10 * high}"], space, {"optim.lr": [1e-5, 40 * high]})
    create_trial(params=parameters, distributions=kinds, value=0.5)
    assert parameters["optim.lr"] == 10 * high and (kinds["optim.lr"].low, kinds["optim.lr"].high) == (1e-5, 40 * high)


# --------------------------------------------------------------------------- edges


def trial(**params: float | str) -> FrozenTrial:
    names = {name.replace("_", ": f.") if "_" in name else name: value for name, value in params.items()}
    kinds = {
        name: CategoricalDistribution([value]) if isinstance(value, str) else FloatDistribution(1e-9, 1e9)
        for name, value in names.items()
    }
    return create_trial(params=names, distributions=kinds, value=0.5)


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"a": 0.1, "b": 1.0}, []),
        ({"a": 0.011}, ["a"]),
        ({"a": 0.0116}, []),  # 3.2% of the way, on a logarithmic scale
        ({"a": 0.95, "b": 1.95}, ["a", "b"]),
        ({"a": 0.86, "b": 1.93}, []),
        ({"b": 0.0001}, []),  # below 0 there is nothing
        ({"c": 1.01}, ["c"]),
        ({"f": "u", "u_g": 99.0}, ["u: f.g"]),
        ({"f": "u", "u_g": 50.0}, []),
        ({"a": 3.0, "b": 2.4}, ["a", "b"]),  # beyond, in a wider range
    ],
)
def test_a_setting_near_the_end_of_its_range_is_at_its_edge(params, found):
    assert edges(SPACE, trial(**params)) == found


def test_ranges_that_are_widened_grow_and_no_others_do():
    before = copy.deepcopy(SPACE)
    wide = widened(SPACE, ["a", "b", "u: f.g"])
    assert before == SPACE and wide.keys() == SPACE.keys()
    assert (wide["a"]["low"], wide["a"]["high"]) == (0.0025, 4.0)
    assert (wide["b"]["low"], wide["b"]["high"]) == (0.0, 2.5)
    assert ranges(wide)["u: f.g"] == {"low": 0.25, "high": 400.0, "log": True, "start": 5}
    assert all(wide[key] == SPACE[key] for key in ("c", "d", "e"))
    assert widened(SPACE, []) == SPACE
    widest = widened(widened(wide, ["b"]), ["b"])
    assert widest["b"]["high"] == 2.8 and edges(widest, trial(b=2.8)) == []
    assert edges(widened(SPACE, ["a", "b"]), trial(a=1.0, b=2.0)) == []


@pytest.mark.parametrize("arm", ["dense", "memory", "memory_plus"])
def test_wider_ranges_hold_settings_that_can_be(arm):
    space = space_of(one(f"arm={arm}"))
    for key, entry in widened(space, list(ranges(space))).items():
        for end in ("low", "high"):
            if end in entry:
                with_words(arm, [f"{key}={entry[end]:.4g}"])
