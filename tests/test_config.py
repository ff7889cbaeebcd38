"""Validation, in one line that names key, value and what is accepted."""

import math

import pytest
from stubs import changed, run_config

from memlayers.config import AtlasConfig, MatchConfig, ModelConfig, OptimConfig, RunConfig, TriplesConfig
from memlayers.config.optim import RoleConfig
from memlayers.layers import Dense, Engram, Memory, NGram, Oracle, Peer, ShortConv
from memlayers.optim import DenseAdamW, LazyAdam, RowwiseAdagrad

NUMBERS = {  # lowest and highest accepted, None where there is no limit
    "seed": (0, 2**31 - 1),
    "threads": (1, 1024),
    "model.d_model": (4, None),
    "model.depth": (1, None),
    "model.num_heads": (1, None),
    "model.hidden": (1, None),
    "model.ffn.num_keys": (2, None),
    "model.ffn.heads": (1, 1024),
    "model.ffn.topk": (1, 64),
    "model.residual.n": (1, 16),
    "model.residual.num_slots": (2, 2**31),
    "model.residual.hashes": (1, 1024),
    "model.values.hashes": (1, 1024),
    "model.values.num_slots": (2, 2**31),
    "model.before.width": (1, 64),
    "match.times": (0.1, 64),
    "match.multiple_of": (1, 1024),
    "training.batch_tokens": (1, 2**22),
    "training.probes": (1, None),
    "training.max_probed_facts": (1, None),
    "training.steps": (1, None),
    "quantize.noise": (0, None),
    "distil.weight": (0, 1),
    "optim.schedule.warmup": (0, 1),
    "optim.schedule.final": (0, 1),
    "optim.values.schedule.warmup": (0, 1),
    "optim.values.schedule.final": (0, 1),
    "world.num_people": (2, 1_000_000),
    "world.zipf": (0.0, 4.0),
}
WORDS = {
    "world.text": ("terse", "prose"),
    "world.document": ("fact", "subject"),
    "model.placement": ("replace", "add"),
    "model.ffn.value_dtype": ("float32", "bfloat16"),
    "model.ffn.pool": ("own", "shared"),
    "model.residual.pool": ("own", "shared"),
    "model.values.pool": ("own", "shared"),
    "model.residual.value_dtype": ("float32", "bfloat16"),
    "match.by": ("flops", "params"),
    "match.spend": ("width", "hidden", "depth", "both", "longer"),
    "training.loss": ("answers", "all"),
    "optim.schedule.shape": ("linear", "cosine", "constant", "trapezoid"),
    "optim.values.schedule.shape": ("linear", "cosine", "constant", "trapezoid"),
    "quantize.tables": ("float32", "bfloat16", "int8", "int4", "int2", "ternary"),
    "quantize.weights": ("float32", "bfloat16", "int8", "int4", "int2", "ternary"),
    "quantize.when": ("after", "trained"),
    "distil.tokens": ("all", "answers", "others"),
    "kernels": ("auto", "native", "reference", "triton"),
    "progress": ("auto", "none"),
}


def with_settings(**settings) -> RunConfig:
    """Of a model with a layer in all places, matched to a memory."""
    model = ModelConfig(ffn=Memory(topk=2), residual=NGram(), values=Engram(), before=ShortConv())
    config = run_config(model=model, match=MatchConfig(reference=Memory()), optim=OptimConfig(values=LazyAdam()))
    for key, value in settings.items():
        config = changed(config, key, value)
    return config


def complaint(config: RunConfig) -> str:
    """The one line of the refusal; it says what is accepted."""
    with pytest.raises(ValueError) as caught:
        config.validate()
    message = str(caught.value)
    assert "\n" not in message and "accepted" in message
    return message


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_are_accepted_up_to_their_limits_and_no_further(key):
    low, high = NUMBERS[key]
    room = {"world.name_parts": [1000] * 3} | ({} if key == "model.d_model" else {"model.d_model": 32})
    whole = not any(part in key for part in ("times", "warmup", "final", "zipf"))
    for value in {low, high} - {None}:
        with_settings(**room | {key: value}).validate()
    for value in [low - (1 if whole else 0.05), *([] if high is None else [high + (1 if whole else 0.05)])]:
        message = complaint(with_settings(**room | {key: value}))
        assert message.startswith(f"{key}={value} "), message
        assert message.endswith(f"{low} or more" if high is None else f"{low} to {high}") or key == "model.d_model"


@pytest.mark.parametrize("key", WORDS)
def test_words_are_those_of_the_list(key):
    for value in WORDS[key]:
        with_settings(**{key: value}).validate()
    message = complaint(with_settings(**{key: "other"}))
    assert message == f"{key}='other' is not known; accepted: {', '.join(WORDS[key])}"


COMBINATIONS = [
    ({"model.ffn.topk": 65}, "model.ffn.topk=65 is out of range; accepted: 1 to 64"),
    ({"model.ffn.d_key": 15}, "model.ffn.d_key=15 is not even; accepted: an even number"),
    ({"model.ffn.d_key": 0}, "model.ffn.d_key=0 is not even"),
    ({"model.d_model": 6, "model.num_heads": 1}, "model.ffn.d_key=3 is not even"),
    ({"model.d_model": 30}, "model.d_model=30 does not divide into model.num_heads=2 heads of even width; acc"),
    ({"match.by": "params", "match.spend": "longer"}, "match.spend=longer adds no parameters; accepted with "),
    ({"match.reference.topk": 65}, "match.reference.topk=65 is out of range; accepted: 1 to 64"),
    ({"match.reference.d_key": 15}, "match.reference.d_key=15 is not even"),
    ({"model.ffn": None}, "model.ffn=None is no layer; accepted: a choice such as arm=memory"),
    (
        {"model.residual": "ngram"},
        "model.residual='ngram' is no layer; accepted: a choice such as extra@model.residual=ngram",
    ),
    ({"match.reference": {}}, "match.reference={} is no layer; accepted: a choice such as ffn@match.reference=memory"),
    ({"match.reference": None, "match.by": "params"}, "match.by=params has nothing to match; accepted: with a match."),
    ({"match.reference": None, "match.times": 2.0}, "match.times=2.0 has nothing to match"),
    ({"match.reference": None, "match.spend": "depth"}, "match.spend=depth has nothing to match"),
    ({"match.reference": None, "match.multiple_of": 8}, "match.multiple_of=8 has nothing to match"),
    ({"model.loops": 0}, "model.loops=0 is out of range; accepted: 1 to 64"),
    (
        {"model.loops": 2, "model.ffn.norm": "batch"},
        "model.loops=2 with model.ffn.norm=batch: running averages would mix",
    ),
    ({"model.residual.num_slots": None}, "model.residual.num_slots=null is one for each token; accepted: with n=1 and"),
    ({"model.values.orders": []}, "model.values.orders=[] is empty or has one twice; accepted: such as [2, 3]"),
    ({"model.values.orders": [3, 3]}, "model.values.orders=[3, 3] is empty or has one twice"),
    ({"model.values.orders": [2, 17]}, "model.values.orders=17 is out of range; accepted: 1 to 16"),
    ({"model.ffn": Oracle(pool="ours")}, "model.ffn.pool='ours' is not known; accepted: own, shared"),
    ({"model.ffn": Oracle("half")}, "model.ffn.value_dtype='half' is not known; accepted: float32, bfloat16"),
    (
        {"kernels": "native", "model.ffn.score": "sink"},
        "kernels=native: only the reference looks up by model.ffn.score=sink; accepted: auto, reference, or score=soft",
    ),
    ({"kernels": "triton", "model.residual": Peer(score="relu")}, "kernels=triton: only the reference looks up by mod"),
    ({"model.extra_blocks": [2]}, "model.extra_blocks=[2]: block 2 is out of range"),
    ({"optim.values": DenseAdamW(weight_decay=-0.1)}, "optim.values.weight_decay=-0.1 is too small; accepted: 0 or"),
    ({"optim.betas": [0.9]}, "optim.betas=[0.9] is not accepted; accepted: two numbers from 0 to below 1"),
    ({"optim.betas": [0.9, 1.0]}, "optim.betas=[0.9, 1.0] is not accepted"),
    ({"optim.values.betas": [-0.1, 0.5]}, "optim.values.betas=[-0.1, 0.5] is not accepted"),
    ({"model.embedding_std": 0.0}, "model.embedding_std=0.0 is not positive; accepted: a number above 0"),
    (
        {"model.ffn": Peer(), "model.value_scale": 0.0},
        "model.value_scale=0: model.ffn multiplies parts of a value, and neither would ever be trained; accepted: abov",
    ),
    ({"model.value_scale": -1.0}, "model.value_scale=-1.0 is too small; accepted: 0 or more"),
    (
        {"model.ffn.d_value": 8},
        "model.ffn.d_value=8 is not the width of the model; accepted: null, or model.ffn.gate=true",
    ),
    ({"model.ffn.gate": True, "model.ffn.d_value": 0}, "model.ffn.d_value=0 is too small; accepted: 1 or more"),
    ({"optim.lr": 0.0}, "optim.lr=0.0 is not positive; accepted: a number above 0"),
    ({"optim.lr": math.nan}, "optim.lr=nan is not a number"),
    ({"optim.values.lr": -1.0}, "optim.values.lr=-1.0 is not positive"),
    ({"optim.muon_lr": 0.1, "model.tied_head": False}, "optim.muon_lr=0.1 would take the untied head"),
    ({"optim.muon_lr": 0.0}, "optim.muon_lr=0.0 is not positive; accepted: a number above 0, or null"),
    ({"optim.clip": 0.0}, "optim.clip=0.0 is not positive; accepted: a number above 0, or null"),
    ({"optim.clip_values": -1.0}, "optim.clip_values=-1.0 is not positive"),
    ({"optim.eps": 0.0}, "optim.eps=0.0 is not positive; accepted: a number above 0"),
    ({"optim.values": LazyAdam(eps=-1e-8)}, "optim.values.eps=-1e-08 is not positive; accepted: a number above 0"),
    ({"optim.values": RowwiseAdagrad(eps=0.0)}, "optim.values.eps=0.0 is not positive"),
    ({"optim.values": DenseAdamW(eps=-1.0)}, "optim.values.eps=-1.0 is not positive"),
    ({"optim.roles": {"matrix": RoleConfig(lr_mul=-1.0)}}, "optim.roles.matrix.lr_mul=-1.0 is too small; accepted: 0"),
    ({"optim.roles": {"bias": RoleConfig(weight_decay=-0.1)}}, "optim.roles.bias.weight_decay=-0.1 is too small"),
    (
        {"quantize.tables": "int8", "model.ffn.value_dtype": "bfloat16"},
        "model.ffn.value_dtype=bfloat16: quantize rounds tables in float32; accepted: float32",
    ),
    (
        {"quantize.noise": 0.1, "model.residual.value_dtype": "bfloat16"},
        "model.residual.value_dtype=bfloat16: quantize rounds tables in float32; accepted: float32",
    ),
    (
        {"quantize.weights": "int8", "trainer.precision": "bf16-true"},
        "trainer.precision=bf16-true: quantize rounds parameters in float32; accepted: 32-true, bf16-mixed",
    ),
    (
        {"quantize.weights": "int8", "trainer": {"strategy": "ddp", "devices": "auto"}},
        "trainer=ddp: quantize rounds a model of one process; accepted: trainer=cpu, trainer=gpu",
    ),
    ({"distil.temperature": 0.0}, "distil.temperature=0.0 is not positive; accepted: a number above 0"),
    (
        {"distil.teacher": "memory"},
        "distil.teacher=memory names no runs; accepted: STUDY/ARM of runs with save_model=true",
    ),
    ({"distil.teacher": "../single/memory"}, "distil.teacher=../single/memory names no runs"),
    ({"distil.teacher": "single/"}, "distil.teacher=single/ names no runs"),
    (
        {"distil.teacher": "single/memory", "distil.tokens": "others"},
        "distil.tokens=others: only answers are scored; accepted: all, or training.loss=all",
    ),
    (
        {"distil.teacher": "single/memory", "save_model": True},
        "save_model=true: the student would be kept among its teachers, single/memory; accepted: false, or",
    ),
    ({"training.exposures": 0.0}, "training.exposures=0.0 is not positive"),
    ({"world.cardinalities": []}, "world.cardinalities=[] is empty"),
    ({"world.cardinalities": [4, 1]}, "world.cardinalities=1 is out of range; accepted: 2 to 65536"),
    ({"world.name_parts": [3, 0]}, "world.name_parts=[3, 0] is empty or not positive"),
    (
        {"world.name_parts": [10, 10]},
        "world.num_people=10000 is more than world.name_parts=[10, 10] can name; accepted: 2 to 100",
    ),
    ({"world": AtlasConfig(source="other")}, "world.source='other' is not known; accepted: readings, airports"),
    ({"world": AtlasConfig(spelling="letters")}, "world.spelling='letters' is not known; accepted: bytes"),
    ({"world": AtlasConfig(num_subjects=1)}, "world.num_subjects=1 is too small; accepted: 2 or more"),
    ({"world": AtlasConfig(num_bpe_tokens=299)}, "world.num_bpe_tokens=299 is too small; accepted: 300 or more"),
    ({"world": AtlasConfig(num_bpe_tokens=500)}, "world.num_bpe_tokens=500 has no effect; accepted: with world.spe"),
    ({"world": TriplesConfig(templates="t.json")}, "world.templates=t.json has no effect; accepted: with world.text"),
    ({"world": TriplesConfig(spelling="pairs")}, "world.spelling='pairs' is not known; accepted: words, letters"),
    ({"world": TriplesConfig(num_subjects=1)}, "world.num_subjects=1 is too small; accepted: 2 or more"),
]


@pytest.mark.parametrize(("settings", "begins"), COMBINATIONS, ids=[begins[:40] for _, begins in COMBINATIONS])
def test_settings_that_cannot_be_are_refused_in_one_line(settings, begins):
    assert complaint(with_settings(**settings)).startswith(begins)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.ffn.topk": 64},
        {"model.ffn.d_key": 2},
        {"optim.values": DenseAdamW(weight_decay=0.1)},
        {"optim.values": None},
        {"optim.clip": None, "optim.clip_values": 1.0},
        {"match.by": "flops", "match.spend": "longer"},
        {
            "model.residual": NGram(n=1, num_slots=None, hashes=1),
            "model.ffn": Oracle(),
            "model.values": Engram([1, 16]),
        },
        {"kernels": "auto", "model.ffn.score": "sink"},
        {"kernels": "native", "model.residual": Peer()},
        {"match.reference": None},
        {"distil.teacher": "single/memory", "distil.tokens": "others", "training.loss": "all", "distil.weight": 0},
        {"distil.teacher": "single/dense", "save_model": True},
        {"quantize.weights": "int8", "model.ffn.value_dtype": "bfloat16"},
        {"match.reference": Dense(), "model.ffn": Dense()},
        {"world": AtlasConfig(source="airports", spelling="bpe", num_bpe_tokens=500, num_subjects=2)},
        {"world": TriplesConfig(templates="templates.json", text="prose")},
    ],
    ids=str,
)
def test_settings_that_can_be_are_accepted(settings):
    with_settings(**settings).validate()
