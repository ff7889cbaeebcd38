"""Arms: a name for each, a size that matches the reference, and rates by the choice of a world, not by its name."""

import pytest
from commands import ARMS, CHOICES, DENSE_ARMS, STUDY, composed, one, refusal
from omegaconf import OmegaConf
from stubs import leaves

from memlayers.config import RunConfig
from memlayers.config.digest import NOT_DECISIVE, decisive, digest, flatten, settings
from memlayers.layers import Dense, layer_name
from memlayers.studies.files import CONF
from memlayers.training.plan import Plan, plan

SMALL = "world.num_subjects=300"


def of_world(world: str, *words: str) -> RunConfig:
    return one(f"world={world}", *(["world.path=facts.csv"] if world == "triples" else []), *words)


# --------------------------------------------------------------------------- names


def test_every_feed_forward_of_conf_is_an_arm_and_ffn_is_short_for_it():
    for name in CHOICES["ffn"]:
        long, short = one(f"arm={name}"), one(f"ffn={name}")
        assert long.arm == name and (short.arm, short.model, short.optim) == (name, long.model, long.optim)
        assert digest(long) == digest(short)
    assert set(CHOICES["arm"]).isdisjoint(CHOICES["ffn"])
    assert [job.arm for job in composed("-m", f"ffn={','.join(ARMS)}")] == ARMS
    assert one().arm == "memory" and {layer_name(one().model.ffn)} == {"memory"}


@pytest.mark.parametrize("line", ["ffn=dense arm=memory", "arm=memory ffn=dense", "-m ffn=dense arm=dense"])
def test_two_names_for_one_arm_are_refused(line):
    said = refusal(*line.split())
    assert said == "ffn=dense: an arm names its feed-forward already; accepted: arm= or ffn=, not both"


@pytest.mark.parametrize("choice", CHOICES["ffn"])
def test_the_kind_of_a_layer_is_a_choice_and_no_setting(choice):
    other = next(name for name in CHOICES["ffn"] if name != choice)
    for line in (f"model.ffn.name={other}", f"model.ffn.kind={other}"):
        assert refusal(f"ffn={choice}", line).startswith(f"{line}: unknown key ")
        assert refusal(f"ffn={choice}", f"+{line}").startswith(f"+{line}: ")


# --------------------------------------------------------------------------- sizes


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Of every arm, by no experiment."""
    return {job.arm: plan(job) for job in composed("-m", f"arm={','.join(ARMS)}", SMALL)}


def test_dense_arms_of_a_plain_sweep_have_sizes_of_their_own(plans):
    shapes = {arm: (plans[arm].matched.model.d_model, plans[arm].matched.model.hidden) for arm in DENSE_ARMS}
    assert len(set(shapes.values())) == len(DENSE_ARMS) >= 5, shapes
    assert len({plans[arm].matched.cost.params for arm in DENSE_ARMS}) == len(DENSE_ARMS)
    assert len({digest(job) for job in composed("-m", f"arm={','.join(DENSE_ARMS)}")}) == len(DENSE_ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_costs_what_the_reference_costs_or_its_multiple(arm, plans):
    config, own, reference = one(f"arm={arm}", SMALL), plans[arm], plans["memory"].matched.cost
    if config.match.by == "params":
        assert own.matched.cost.params == pytest.approx(config.match.times * reference.params, rel=0.01)
    else:
        assert own.matched.cost.flops == pytest.approx(config.match.times * reference.flops, rel=0.01)
    assert (own.steps, own.batch_size, own.tokens) == (plans["memory"].steps, plans["memory"].batch_size, own.tokens)
    assert config.match.reference == one(SMALL).model.ffn, "all arms are matched to the same memory"


def test_arms_differ_in_the_feed_forward_the_match_and_rates_only():
    reference = one()
    own = flatten(decisive(reference))
    for arm in ARMS:
        job = one(f"arm={arm}")
        flat = flatten(decisive(job))
        different = {key for key in own.keys() | flat.keys() if own.get(key, "none") != flat.get(key, "none")}
        assert all(
            key.startswith(("model.ffn.", "match.", "optim.values."))  # dense has neither memory nor values
            or (key.startswith("optim.") and key.rpartition(".")[2] in ("lr", "lr_mul", "muon_lr"))
            for key in different
        ), (arm, different)
        assert bool(different) == (arm != "memory")
        assert isinstance(job.model.ffn, Dense) == (arm in DENSE_ARMS)
        for name in NOT_DECISIVE:
            assert name == "arm" or getattr(job, name) == getattr(reference, name)


def test_the_study_is_its_arms_by_its_seeds_and_each_is_what_it_is_without_the_study():
    jobs = composed(STUDY)
    arms = list(dict.fromkeys(job.arm for job in jobs))
    assert [(job.arm, job.seed) for job in jobs] == [(arm, seed) for arm in arms for seed in range(5)]
    assert set(arms) == {*CHOICES["ffn"], "dense_2x", "dense_4x", "dense_params"} <= set(ARMS)
    assert {job.study for job in jobs} == {"memory_vs_dense"} and len({digest(job) for job in jobs}) == len(arms)
    assert all(digest(job) == digest(one(f"arm={job.arm}")) for job in jobs)
    assert all(job.axes == {"arm": job.arm, "seed": job.seed} for job in jobs)


# --------------------------------------------------------------------------- rates


@pytest.mark.parametrize("world", CHOICES["world"])
@pytest.mark.parametrize("arm", ["memory", "dense"])
def test_another_name_for_a_world_changes_nothing_but_the_name(world, arm):
    own, renamed = (of_world(world, f"arm={arm}", *words) for words in ([], ["world.name=mine"]))
    assert renamed.world.name == "mine" and digest(own) == digest(renamed)
    assert renamed.optim == own.optim and renamed.model == own.model and renamed.match == own.match
    different = {key for key, value in leaves(own).items() if leaves(renamed)[key] != value}
    assert different == {"world.name"} and settings(own)["rates"] == settings(renamed)["rates"]


@pytest.mark.parametrize("world", CHOICES["world"])
def test_rates_are_those_of_the_table_of_the_world_for_each_arm(world):
    table = OmegaConf.to_container(OmegaConf.load(CONF / "rates" / f"{world}.yaml"))
    assert set(table) - {"default"} <= set(ARMS)
    for arm in ARMS:
        config = of_world(world, f"arm={arm}")
        wanted = table["default"] | table.get(arm, {})
        assert config.optim.lr == wanted["lr"] and config.optim.muon_lr == wanted["muon_lr"]
        assert config.optim.roles["vector"].lr_mul == wanted["gains"]
        assert config.optim.values.lr == wanted["values_lr"]
        assert config.match.reference.num_keys == wanted["num_keys"]
        slots = getattr(config.model.ffn, "num_slots", None) or getattr(config.model.ffn, "num_keys", 0) ** 2
        assert arm in DENSE_ARMS or slots == wanted["num_keys"] ** 2


def test_rates_of_another_world_and_rates_given_by_hand():
    assert set(CHOICES["rates"]) == set(CHOICES["world"])
    airports = one("world=atlas_airports")
    assert one("rates=atlas_airports").match.reference.num_keys == airports.match.reference.num_keys == 192
    assert one("rates=atlas_airports").world == one().world
    given = one("optim.lr=1e-3", "rates.default.values_lr=7", "world=biographies", "training.exposures=2")
    assert (given.optim.lr, given.optim.values.lr, given.training.exposures) == (1e-3, 7.0, 2.0)
    assert (one("world=biographies").training.exposures, one().training.exposures) == (8.0, 16.0)
