"""Validation, the blocks that a setting chooses, and the digest that tells experiments apart."""

import copy
import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stubs import run_config

from memlayers.config import (
    AtlasConfig,
    BiographiesConfig,
    FFNConfig,
    MatchConfig,
    MemoryConfig,
    ModelConfig,
    RoleConfig,
    RunConfig,
    TriplesConfig,
)
from memlayers.config.run import decisive, digest, flatten

NAMES_AND_PLACES = {  # what only names, shows or stores a run, with two values each
    "seed": (0, 7),
    "kernels": ("auto", "reference"),
    "study": ("single", "other"),
    "arm": ("memory", "mine"),
    "results": ("results/local", "/elsewhere"),
    "logger": (None, {"_target_": "some.Logger"}),
    "checkpoint": (None, "run.ckpt"),
    "save_checkpoint": (False, True),
    "progress": ("auto", "none"),
}
FULL = run_config(
    world=AtlasConfig(name="atlas", num_subjects=100, relations=["reading"]),
    model=ModelConfig(ffn=MemoryConfig(d_key=16), blocks=[1]),
    match=MatchConfig(reference=MemoryConfig(), multiple_of=8),
    trainer={"accelerator": "cpu", "devices": 1, "precision": "32-true"},
)
FULL.optim.muon_lr = 0.02
FULL.optim.roles = {"matrix": RoleConfig(), "vector": RoleConfig(weight_decay=0.1)}


def leaves(node, path: tuple = ()) -> list[tuple]:
    """Paths of all settings, through dataclasses and dictionaries."""
    if dataclasses.is_dataclass(node):
        items = [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
    elif isinstance(node, dict):
        items = list(node.items())
    else:
        return [path]
    return [leaf for name, value in items for leaf in leaves(value, (*path, name))]


def changed(config: RunConfig, path: tuple, value) -> RunConfig:
    config = copy.deepcopy(config)
    node = config
    for name in path[:-1]:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    if isinstance(node, dict):
        node[path[-1]] = value
    else:
        setattr(node, path[-1], value)
    return config


def value_at(config: RunConfig, path: tuple):
    node = config
    for name in path:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    return node


def another(value):
    """A value that is not the same, of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, value[-1]]
    assert value is None
    return 3


DECISIVE = [path for path in leaves(FULL) if path[0] not in NAMES_AND_PLACES]
WORLDS = [BiographiesConfig(name="bio"), TriplesConfig(name="mine", path="facts.csv")]


# --------------------------------------------------------------------------- digest


@pytest.mark.parametrize("name", NAMES_AND_PLACES)
def test_the_digest_is_the_same_whatever_names_shows_or_stores_a_run(name):
    one, other = (changed(FULL, (name,), value) for value in NAMES_AND_PLACES[name])
    assert getattr(one, name) != getattr(other, name) and digest(one) == digest(other)


@pytest.mark.parametrize("path", DECISIVE, ids=".".join)
def test_the_digest_differs_with_every_other_setting(path):
    other = changed(FULL, path, another(value_at(FULL, path)))
    assert digest(other) != digest(FULL) == digest(copy.deepcopy(FULL))


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_digest_differs_with_every_setting_of_a_world(world):
    base = run_config(world=world)
    found = {digest(base)}
    for path in leaves(world, ("world",)):
        found.add(digest(changed(base, path, another(value_at(base, path)))))
    assert len(found) == 1 + len(leaves(world))


def test_the_digest_differs_between_kinds_of_the_same_settings():
    ffns = [FFNConfig(), MemoryConfig(), MemoryConfig(name="memory_plus")]
    configs = [run_config(model=ModelConfig(ffn=ffn)) for ffn in ffns]
    configs += [run_config(match=MatchConfig(reference=ffn)) for ffn in ffns]
    configs += [run_config(trainer={}), run_config(trainer={"accelerator": "gpu"})]
    assert len({digest(config) for config in configs}) == len(configs)


def test_rates_of_values_are_in_the_digest_of_arms_with_a_memory_alone():
    dense = changed(FULL, ("model", "ffn"), FFNConfig())
    other = changed(dense, ("optim", "values", "lr"), 0.123)
    assert digest(dense) == digest(other) and "values" not in decisive(dense)["optim"]


def test_a_rate_of_muon_that_is_not_used_is_not_in_the_digest():
    without = changed(FULL, ("optim", "muon_lr"), None)
    assert "muon_lr" not in decisive(without)["optim"] and digest(without) != digest(FULL)


def test_a_multiple_that_every_number_is_one_of_is_not_in_the_digest():
    without = changed(FULL, ("match", "multiple_of"), 1)
    assert "multiple_of" not in decisive(without)["match"] and digest(without) != digest(FULL)


@pytest.mark.parametrize("key", ["path", "templates"])
def test_the_digest_follows_what_a_users_file_says_and_not_where_it_lies(tmp_path, key):
    def digest_of(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return digest(run_config(world=TriplesConfig(**{"path": "facts.csv", key: str(tmp_path / name)})))

    first = digest_of("one", "a")
    assert first == digest_of("two", "a") == digest_of("one", "a") != digest_of("one", "b")


def test_the_digest_is_twelve_hexadecimal_digits_of_values_not_of_order():
    assert len(digest(FULL)) == 12 and int(digest(FULL), 16) >= 0
    turned = copy.deepcopy(FULL)
    turned.trainer = dict(reversed(FULL.trainer.items()))
    turned.optim.roles = dict(reversed(FULL.optim.roles.items()))
    assert digest(turned) == digest(FULL)
    moved = changed(FULL, ("world", "relations"), ["a", "b"])
    assert digest(moved) != digest(changed(FULL, ("world", "relations"), ["b", "a"]))


def test_the_decisive_settings_are_all_leaves_but_names_and_places():
    assert {field.name for field in dataclasses.fields(RunConfig)} >= NAMES_AND_PLACES.keys()
    flat = flatten(decisive(FULL))
    assert flat == {".".join(path): value_at(FULL, path) for path in DECISIVE}


keys = st.text("abc", min_size=1, max_size=2)
plain = st.integers() | st.none() | st.lists(st.integers(), max_size=2)
trees = st.recursive(plain, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3))


@given(tree=st.dictionaries(keys, trees, max_size=4))
def test_flat_keys_lead_back_to_their_leaves(tree):
    flat = flatten(tree)
    for key, value in flat.items():
        node = tree
        for name in key.split("."):
            node = node[name]
        assert node == value and not isinstance(node, dict)
    assert len(flat) == len(leaves(tree))


# --------------------------------------------------------------------------- blocks


@given(depth=st.integers(1, 12), data=st.data())
def test_blocks_by_list_name_or_fraction(depth, data):
    def chosen(blocks):
        return ModelConfig(blocks=blocks, depth=depth).chosen_blocks()

    assert chosen("all") == list(range(depth))
    below = chosen("middle")[0]
    assert chosen("middle") == [below] and below - (depth - 1 - below) in (0, 1)  # as many before as after, or one more
    indices = data.draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=5))
    assert chosen(indices) == sorted(set(indices))
    fraction = data.draw(st.floats(0, 1))
    (block,) = chosen(fraction)
    assert 0 <= block < depth and (block <= fraction * depth < block + 1 or fraction * depth == depth == block + 1)
    for wrong in (depth, -1):
        with pytest.raises(
            ValueError, match=rf"block {wrong} is out of range; accepted: .* such as \[{depth - 1}\], from 0"
        ):
            chosen([*indices, wrong])


@pytest.mark.parametrize("blocks", [1, True, [], [0.5], ["0"], [True], None, "last", 1.5, -0.5, math.nan])
def test_blocks_that_make_no_sense_are_refused(blocks):
    with pytest.raises(ValueError) as caught:
        ModelConfig(blocks=blocks).chosen_blocks()
    accepted = "a list of indices such as [1], from 0; all, middle, or a fraction from 0 to 1"
    assert str(caught.value) == f"model.blocks={blocks} is not understood; accepted: {accepted}"


# --------------------------------------------------------------------------- validation

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
    "match.times": (0.1, 64),
    "training.batch_tokens": (1, 2**22),
    "training.probes": (1, None),
    "training.max_probed_facts": (1, None),
    "training.steps": (1, None),
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
    "model.ffn.name": ("dense", "memory", "memory_plus"),
    "model.ffn.value_dtype": ("float32", "bfloat16"),
    "match.by": ("flops", "params"),
    "match.spend": ("width", "hidden", "depth", "longer"),
    "training.loss": ("answers", "all"),
    "optim.schedule.shape": ("linear", "cosine", "constant", "trapezoid"),
    "optim.values.schedule.shape": ("linear", "cosine", "constant", "trapezoid"),
    "kernels": ("auto", "native", "reference", "triton"),
    "progress": ("auto", "none"),
}


def with_settings(**settings) -> RunConfig:
    config = run_config(model=ModelConfig(ffn=MemoryConfig(topk=2)))
    for key, value in settings.items():
        config = changed(config, tuple(key.split(".")), value)
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
    ({"match.reference": MemoryConfig(topk=65)}, "model.ffn.topk=65 is out of range"),
    ({"optim.values.weight_decay": 0.1}, "optim.values.weight_decay=0.1 has no effect on rows that are not read"),
    ({"optim.betas": [0.9]}, "optim.betas=[0.9] is not accepted; accepted: two numbers from 0 to below 1"),
    ({"optim.betas": [0.9, 1.0]}, "optim.betas=[0.9, 1.0] is not accepted"),
    ({"optim.values.betas": [-0.1, 0.5]}, "optim.values.betas=[-0.1, 0.5] is not accepted"),
    ({"model.embedding_std": 0.0}, "model.embedding_std=0.0 is not positive; accepted: a number above 0"),
    ({"optim.lr": 0.0}, "optim.lr=0.0 is not positive; accepted: a number above 0"),
    ({"optim.lr": math.nan}, "optim.lr=nan is not a number"),
    ({"optim.values.lr": -1.0}, "optim.values.lr=-1.0 is not positive"),
    ({"optim.muon_lr": 0.1, "model.tied_head": False}, "optim.muon_lr=0.1 would take the untied head"),
    ({"match.multiple_of": 0}, "match.multiple_of=0 is out of range; accepted: 1 to 1024"),
    ({"optim.muon_lr": 0.0}, "optim.muon_lr=0.0 is not positive; accepted: a number above 0, or null"),
    ({"optim.clip": 0.0}, "optim.clip=0.0 is not positive; accepted: a number above 0, or null"),
    ({"optim.clip_values": -1.0}, "optim.clip_values=-1.0 is not positive"),
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
    ({"world": TriplesConfig(spelling="pairs")}, "world.spelling='pairs' is not known; accepted: words, letters"),
    ({"world": TriplesConfig(num_subjects=1)}, "world.num_subjects=1 is too small; accepted: 2 or more"),
]


NAMELESS = {"world.name_parts=[10, 10]"}  # this one says no `accepted`: reported


@pytest.mark.parametrize(("settings", "begins"), COMBINATIONS, ids=[begins[:40] for _, begins in COMBINATIONS])
def test_settings_that_cannot_be_are_refused_in_one_line(settings, begins):
    config = with_settings(**settings)
    with pytest.raises(ValueError) as caught:
        config.validate()
    message = str(caught.value)
    assert message.startswith(begins) and "\n" not in message
    assert "accepted" in message or any(part in message for part in NAMELESS)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.ffn.topk": 64},
        {"model.ffn.d_key": 2},
        {"model.ffn.sparse": False, "optim.values.weight_decay": 0.1},
        {"optim.clip": None, "optim.clip_values": 1.0},
        {"match.by": "flops", "match.spend": "longer"},
        {"match.reference": MemoryConfig(), "model.ffn": FFNConfig()},
        {"world": AtlasConfig(source="airports", spelling="bpe", num_subjects=2)},
    ],
    ids=str,
)
def test_settings_that_can_be_are_accepted(settings):
    with_settings(**settings).validate()
