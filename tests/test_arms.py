"""Arms: a name for each, a size that matches the reference, and tables as large as each other."""

import pytest
from commands import ARMS, CHOICES, DENSE_ARMS, STUDY, composed, one, refusal
from stubs import leaves

from memlayers.config import RunConfig
from memlayers.config.digest import NOT_DECISIVE, decisive, digest, flatten, settings
from memlayers.config.model import PLACES
from memlayers.layers import Dense, layer_name
from memlayers.studies.cli import words_of
from memlayers.studies.files import CONF
from memlayers.studies.summary import EXPOSURES
from memlayers.training.plan import Plan, plan

SMALL = "world.num_subjects=300"


def of_world(world: str, *words: str) -> RunConfig:
    return one(f"world={world}", *(["world.path=facts.csv"] if world == "triples" else []), *words)


# --------------------------------------------------------------------------- names


def test_every_feed_forward_of_conf_is_an_arm_and_ffn_is_short_for_it():
    for name in CHOICES["ffn"]:
        assert one(f"arm={name}").arm == name and words_of([f"ffn={name}"]) == [f"arm={name}"]
    long, short = one("arm=pkm"), one("ffn=pkm")
    assert (short.arm, short.model, short.optim) == ("pkm", long.model, long.optim) and digest(long) == digest(short)
    assert set(CHOICES["arm"]).isdisjoint(CHOICES["ffn"])
    assert words_of(["-m", f"ffn={','.join(ARMS)}"]) == ["-m", f"arm={','.join(ARMS)}"]
    some = [CHOICES["arm"][0], *CHOICES["ffn"][:2]]
    assert [job.arm for job in composed("-m", f"ffn={','.join(some)}")] == some
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


def test_arms_differ_in_their_layers_and_the_match_only():
    """And in what was tuned for each, which is left out here."""
    reference = one("rates.arm=null")
    own = flatten(decisive(reference))
    for arm in ARMS:
        job = one(f"arm={arm}", "rates.arm=null")
        flat = flatten(decisive(job))
        different = {key for key in own.keys() | flat.keys() if own.get(key, "none") != flat.get(key, "none")}
        layers = (
            "model.ffn.",
            "model.residual.",
            "model.values.",
            "model.beside.",
            "model.extra_blocks",
            "model.loops",
            "match.",
        )
        assert all(key.startswith((*layers, "optim.values.")) for key in different), (arm, different)
        assert bool(different) == (arm != "memory")
        file = CONF / "arm" / f"{arm}.yaml"
        assert isinstance(job.model.ffn, Dense) == (
            (file.is_file() and "/ffn: dense" in file.read_text()) or arm == "dense"
        )
        for name in NOT_DECISIVE:
            assert name == "arm" or getattr(job, name) == getattr(reference, name)


def test_the_study_is_its_arms_by_its_axes_and_each_is_what_it_is_without_the_study():
    jobs = composed(STUDY, "training.exposures=2,8")
    arms = list(dict.fromkeys(job.arm for job in jobs))
    wanted = {(arm, shown, seed) for arm in arms for shown in (2.0, 8.0) for seed in range(3)}
    assert {(job.arm, job.training.exposures, job.seed) for job in jobs} == wanted and len(jobs) == len(wanted)
    assert {"memory", "dense", "ngram"} <= set(arms) <= set(ARMS) and {job.study for job in jobs} == {"frontier"}
    assert len({digest(job) for job in jobs}) == 2 * len(arms)
    for job in jobs:
        shown, words = job.training.exposures, [f"training.probes={job.training.probes}"]
        assert digest(job) == digest(one(f"arm={job.arm}", f"training.exposures={shown}", *words))
        assert job.axes == {"arm": job.arm, "training.exposures": shown, "seed": job.seed}


# --------------------------------------------------------------------------- worlds


@pytest.mark.parametrize("world", CHOICES["world"])
@pytest.mark.parametrize("arm", ["memory", "dense"])
def test_another_name_for_a_world_changes_nothing_but_the_name(world, arm):
    own, renamed = (of_world(world, f"arm={arm}", *words) for words in ([], ["world.name=mine"]))
    assert renamed.world.name == "mine" and digest(own) == digest(renamed)
    assert renamed.optim == own.optim and renamed.model == own.model and renamed.match == own.match
    different = {key for key, value in leaves(own).items() if leaves(renamed)[key] != value}
    assert different == {"world.name"} and settings(own)["rates"] == settings(renamed)["rates"]


def sizes(config: RunConfig) -> set[int]:
    """How many slots, of the width of the model, each table of a run has that does not have one a token or a fact."""
    layers = [config.model.ffn, *(getattr(config.model, place) for place in PLACES), config.match.reference]
    slots = [getattr(layer, "num_slots", None) or getattr(layer, "num_keys", 0) ** 2 for layer in layers]
    return set(slots) - {0}


@pytest.mark.slow
@pytest.mark.parametrize("world", CHOICES["world"])
def test_tables_of_all_arms_in_a_world_are_as_large(world):
    found = {arm: sizes(of_world(world, f"arm={arm}")) for arm in ARMS}
    slots = of_world(world).num_keys ** 2
    assert set(map(frozenset, found.values())) == {frozenset([slots])}
    assert sizes(of_world(world, "arm=engram", "num_keys=16")) == sizes(of_world(world, "num_keys=16")) == {256}


def test_a_world_says_how_long_its_runs_are():
    assert one("world=biographies", "training.exposures=2").training.exposures == 2.0
    ours = [world for world in CHOICES["world"] if world != "triples"]
    assert {of_world(world).training.exposures for world in ours} == {EXPOSURES}, (
        "one rule, and it is what tables quote"
    )
