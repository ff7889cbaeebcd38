"""Settings without effect: whatever is set either makes another experiment, or is refused, or only names things."""

from functools import cache
from typing import Any

import pytest
from commands import ARMS, CHOICES, STUDY, composed, one, refusal
from stubs import changed, leaves

from memlayers.config import RunConfig
from memlayers.config.digest import NOT_DECISIVE, digest, without_effect
from memlayers.config.model import PLACES
from memlayers.layers import NGram, ShortConv
from memlayers.optim.rules import RULES
from memlayers.training.plan import plan

HAS_NO_EFFECT = "has no effect here; accepted: without it, or with the setting that uses it"

# --------------------------------------------------------------------------- one by one


@pytest.mark.parametrize(
    "words",
    [
        ["optim.schedule.final=0.1", "optim.schedule.shape=constant"],
        ["optim.values.schedule.final=0.1", "rates.arm=null"],  # constant by default
        ["model.extra_blocks=[1]", "rates.arm=null"],  # nothing stands there
        ["training.exposures=12", "training.steps=5"],
        ["quantize.tables=int8", "arm=dense"],
        ["quantize.noise=0.1", "arm=dense"],
        ["quantize.when=trained"],
        ["quantize.when=trained", "quantize.noise=0.1"],
        ["distil.weight=0.3"],
        ["distil.temperature=2"],
        ["distil.tokens=answers"],
        ["distil.tokens=answers", "distil.teacher=single/dense"],  # none but answers are scored
        ["distil.temperature=2", "distil.teacher=single/dense", "distil.weight=0"],
        ["optim.values.lr=1", "arm=dense"],
        ["optim.values.schedule.warmup=0.1", "arm=dense"],
        ["optim.clip_values=1", "arm=dense"],
        ["model.value_scale=2", "arm=dense"],
        ["values=sgd", "arm=dense"],
        ["optim.roles.memory_key.lr_mul=2", "arm=dense"],
        ["optim.roles.memory_key.lr_mul=2", "arm=ngram"],  # without keys
        ["optim.roles.memory_key.lr_mul=2", "arm=random"],  # whose keys are never trained
        ["optim.roles.filter.lr_mul=2", "arm=memory", "rates.arm=null"],  # nor convolutions, as its tuned settings have
        ["optim.roles.bias.weight_decay=1", "arm=memory"],
        ["model.placement=add", "arm=dense", "match.reference=null", "rates.arm=null"],
        ["model.blocks=[1]", "arm=dense", "match.reference=null", "rates.arm=null"],
        ["model.blocks=[1]", "arm=dense", "ffn@match.reference=dense"],
    ],
    ids=" ".join,
)
def test_a_word_without_effect_is_refused(words):
    assert refusal(*words) == f"{words[0]}: {HAS_NO_EFFECT}"
    composed(*words[1:])


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["values=sgd", "optim.values.betas=[0.9,0.9]"], "optim.values.betas=[0.9,0.9]: unknown key"),
        (["values=sgd", "optim.values.eps=1e-6"], "optim.values.eps=1e-6: unknown key"),
        (["values=rowwise_adagrad", "optim.values.betas=[0.9,0.9]"], "optim.values.betas=[0.9,0.9]: unknown key"),
        (["values=sgd", "optim.values.weight_decay=0.1"], "optim.values.weight_decay=0.1: unknown key"),
        (
            ["world=atlas_airports", "world.num_bpe_tokens=500"],
            "world.num_bpe_tokens=500 has no effect; accepted: ",
        ),
        (["match.reference=null", "match.times=2"], "match.times=2.0 has nothing to match; accepted: with"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_setting_of_another_choice_is_refused(words, begins):
    assert refusal(*words).startswith(begins)


def test_a_word_with_an_effect_in_one_job_of_a_sweep_is_accepted():
    jobs = composed("-m", "arm=dense,memory", "optim.values.lr=3")
    assert [job.optim.values.lr for job in jobs] == [3.0, 3.0]
    assert composed("-m", "arm=dense,memory", "values=sgd")
    assert composed("arm=pkm", "optim.roles.bias.lr_mul=2") and composed("arm=engram", "optim.roles.filter.lr_mul=2")
    assert digest(jobs[0]) == digest(one("arm=dense")) and digest(jobs[1]) != digest(one("arm=memory"))
    assert refusal("-m", "arm=dense,dense_2x", "optim.values.lr=3") == f"optim.values.lr=3: {HAS_NO_EFFECT}"


@pytest.mark.parametrize(
    "words",
    [
        ["optim.lr=1.5e-3"],
        ["match.times=1"],
        ["world.seed=0"],
        ["training.exposures=16", "training.probes=16"],
        ["arm=dense", "optim.values.schedule.final=0.02", "rates.arm=null"],
        ["-m", "optim.schedule.shape=constant,linear", "optim.schedule.final=0.1"],
        [STUDY, "optim.values.lr=2", "arm=dense,memory", "training.exposures=4", "seed=0"],
    ],
    ids=" ".join,
)
def test_a_word_that_says_what_holds_anyway_is_accepted(words):
    assert composed(*words)


# --------------------------------------------------------------------------- all of them

OTHERS: dict[str, tuple[Any, ...]] = {  # valid values, of which one is not the default
    "world.source": ("airports", "readings"),
    "world.text": ("prose", "terse"),
    "world.document": ("subject", "fact"),
    "world.sentences": (2,),
    "world.prose.num_templates": (3,),
    "world.prose.pieces": (400,),
    "world.prose.celebrities": (0.5,),
    "world.corpus.share": (0.5,),
    "world.junk.share": (0.5,),
    "world.two_hop": (0.5,),
    "world.context.source": ("given", "none"),
    "world.corpus.sources": (["docs"],),
    "world.spelling": ("letters", "pairs"),
    "world.relations": (["reading"],),
    "world.num_subjects": (40,),
    "world.name_parts": ([200, 100, 100],),
    "world.cardinalities": ([128],),
    "world.path": ("other.csv",),
    "world.templates": ("templates.json",),
    "model.placement": ("add",),
    "model.blocks": ([1],),
    "model.extra_blocks": ([1],),
    "model.residual": (NGram(),),
    "model.values": (NGram(),),
    "model.before": (ShortConv(),),
    "model.beside": (NGram(),),
    "match.by": ("flops", "params"),
    "match.spend": ("depth",),
    "orders": ([2],),  # of any layer
    "norm": ("batch", "none"),
    "score": ("sink",),
    "num_slots": (1000,),
    "d_value": (16,),
    "betas": ([0.8, 0.9],),  # of AdamW, or of a rule
    "world.encoding": ("latin-1",),
    "optim.clip_values": (1.0,),
    "optim.muon_lr": (0.007,),
    "optim.schedule.shape": ("cosine", "linear"),
    "optim.schedule.warmup": (0.25,),
    "optim.values.schedule.shape": ("cosine", "linear"),
    "training.loss": ("all", "answers"),
    "training.steps": (5,),
    "quantize.tables": ("int8",),
    "quantize.weights": ("int8",),
    "quantize.when": ("trained",),
    "distil.teacher": ("single/memory",),
    "federated.way": ("average",),
    "distil.tokens": ("answers",),
    "trainer.accelerator": ("gpu",),
    "trainer.precision": ("bf16-mixed",),
    "pool": ("own", "shared"),  # of any layer
    "value_dtype": ("bfloat16",),
    "held_out": ("turned",),
}
REFUSED = ("has no effect", "has nothing to match", "accepted: bytes", "a process has one device")
REFUSED += ("num_slots=null is one for each token", "needs one vocabulary for all", "accepted: with trainer=ddp")
REFUSED += ("model.tied_head=true", "running averages would mix the passes", "pictures have no sentences")
REFUSED += ("friends have no sentences", "d_value=16 is not the width of the model")


def another(key: str, value: Any) -> Any:
    for other in OTHERS.get(key) or OTHERS.get(key.rpartition(".")[2], ()):
        if other != value:
            return other
    if isinstance(value, bool):
        return not value
    assert isinstance(value, int | float), f"{key}={value}: no other value is known"
    return 2 * value if value else type(value)(1)


def unaffected(config: RunConfig) -> dict[str, Any]:
    """Settings that decide, with values that are accepted and change no digest. Asserts why others are refused."""
    own, found = digest(config), {}
    for key, value in leaves(config).items():
        if key.partition(".")[0] in NOT_DECISIVE or key == "world.name":
            continue
        other = changed(config, key, another(key, value))
        try:
            other.validate()
        except ValueError as error:
            assert any(reason in str(error) for reason in REFUSED), error
            continue
        if digest(other) == own:
            found[key] = another(key, value)
    return found


def of_world(world: str, *words: str) -> RunConfig:
    return one(f"world={world}", *(["world.path=facts.csv"] if world == "triples" else []), *words)


@cache
def unaffected_of(arm: str) -> dict[str, Any]:
    return unaffected(one(f"arm={arm}", "rates.arm=null"))


@pytest.mark.parametrize("arm", ARMS)
def test_every_setting_of_an_arm_makes_another_experiment_or_is_known_to_have_no_effect(arm):
    config = one(f"arm={arm}", "rates.arm=null")
    without, found = without_effect(config), unaffected_of(arm)
    layers = (config.model.ffn, *(getattr(config.model, place) for place in PLACES))
    assert {key for key in found if not any(f"{key}.".startswith(f"{one}.") for one in without)} == set()
    assert "optim.schedule.final" not in found and ("model.blocks" not in found)
    assert ("optim.values.lr" in found) == (not any(hasattr(layer, "pool") for layer in layers))


@pytest.mark.parametrize("world", CHOICES["world"])
def test_every_setting_of_a_world_makes_another_experiment(world):
    assert {key for key in unaffected(of_world(world)) if key.startswith("world.")} == set()


def test_what_changes_no_digest_is_refused_on_the_command_line():
    """Each setting once, for the first arm in which it has no effect."""
    tried = {}
    for arm in ARMS:
        for key, value in unaffected_of(arm).items():
            if tried.setdefault(key, arm) == arm:
                line = f"{key}={value}".replace(" ", "")
                assert refusal(f"arm={arm}", "rates.arm=null", line) == f"{line}: {HAS_NO_EFFECT}"
    assert {"model.extra_blocks", "optim.values.lr", "optim.values.schedule.final", "optim.clip_values"} <= set(tried)


def test_what_changes_no_digest_changes_no_size():
    """Many reads make the sort behind a sparse gradient a share of the reference's cost that can be seen."""
    config = one("arm=dense", "match.reference.topk=32", "world.num_subjects=200")
    sizes: dict[str, set[str]] = {}
    for rule in RULES.values():
        other = changed(config, "optim.values", rule())
        sizes.setdefault(digest(other), set()).add(str(plan(other).matched.model))
    assert all(len(found) == 1 for found in sizes.values())
