"""The digest that tells experiments apart: of what differs from the defaults in the code, and has an effect."""

import copy
import dataclasses
from typing import Any

import pytest
from stubs import changed, leaves, run_config

from memlayers.config import (
    AtlasConfig,
    BiographiesConfig,
    MatchConfig,
    ModelConfig,
    OptimConfig,
    PicturesConfig,
    ScheduleConfig,
    TriplesConfig,
)
from memlayers.config.digest import NOT_DECISIVE, decisive, digest, flatten, settings, without_effect
from memlayers.config.text import CorpusConfig
from memlayers.layers import LAYERS, Dense, Memory, NGram, ShortConv
from memlayers.optim.rules import RULES, LazyAdam

NAMES_AND_PLACES = {  # what only names, shows or stores a run, with two values each
    "seed": (0, 7),
    "kernels": ("auto", "reference"),
    "study": ("single", "other"),
    "arm": ("memory", "mine"),
    "axes": ({}, {"seed": 1, "model.depth": 3}),
    "rates.arm": (None, "dense"),
    "num_keys": (128, 64),
    "report.question": ("", "Why?"),
    "results": ("results/local", "/elsewhere"),
    "logger": (None, {"_target_": "some.Logger"}),
    "save_model": (False, True),
    "checkpoint_minutes": (10.0, None),
    "progress": ("auto", "none"),
    "world.name": ("atlas", "mine"),
}
KINDS = {  # a run in which every setting has an effect
    "world": AtlasConfig(),
    "model": ModelConfig(ffn=Memory(), residual=NGram(), before=ShortConv()),
    "match": MatchConfig(reference=Memory()),
    "optim": OptimConfig(values=LazyAdam(schedule=ScheduleConfig())),
}
CHANGES = {
    "world.source": "airports",
    "world.spelling": "bpe",
    "world.relations": ["country"],
    "model.ffn.d_key": 16,
    "model.ffn.gate": True,
    "model.residual.hashes": 2,
    "model.before.width": 3,
    "model.blocks": [1],
    "match.reference.topk": 4,
    "match.multiple_of": 8,
    "match.spend": "hidden",
    "optim.muon_lr": 0.02,
    "optim.roles.vector.weight_decay": 0.1,
    "optim.values.schedule.warmup": 0.5,
    "training.exposures": 3.0,
    "training.loss": "all",
    "quantize.tables": "int8",
    "distil.teacher": "single/memory",
    "distil.weight": 0.25,
    "distil.tokens": "answers",
    "distil.temperature": 2.0,
    "trainer.precision": "bf16-mixed",
    "threads": 2,
}
FULL = run_config(**KINDS)
for key, value in CHANGES.items():
    FULL = changed(FULL, key, value)
CLIENTS = changed(FULL, "federated.way", "rows")  # which have no probes
DECISIVE = [key for key in leaves(FULL) if key not in NAMES_AND_PLACES and key.partition(".")[0] not in NOT_DECISIVE]
WORLDS = [BiographiesConfig(name="bio"), TriplesConfig(name="mine", path="facts.csv"), AtlasConfig(name="atlas")]
WORLDS += [PicturesConfig(name="pictures")]


def another(value: Any) -> Any:
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


# --------------------------------------------------------------------------- what is in it, and what is not


@pytest.mark.parametrize("name", NAMES_AND_PLACES)
def test_the_digest_is_the_same_whatever_names_shows_or_stores_a_run(name):
    one, other = (changed(FULL, name, value) for value in NAMES_AND_PLACES[name])
    assert leaves(one) != leaves(other) and digest(one) == digest(other)


def test_all_names_and_places_are_looked_at():
    assert {name.partition(".")[0] for name in NAMES_AND_PLACES} - {"world"} == set(NOT_DECISIVE)
    assert without_effect(FULL) == {"world.name", *(f"federated.{name}" for name in ("clients", "rounds", "shared"))}
    assert without_effect(CLIENTS) == {"world.name", "training.probes", "training.max_probed_facts"}


@pytest.mark.parametrize("key", DECISIVE)
def test_the_digest_differs_with_every_other_setting(key):
    base = CLIENTS if key.startswith("federated.") else FULL
    other = changed(base, key, another(leaves(base)[key]))
    assert digest(other) != digest(base) == digest(copy.deepcopy(base))


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_digest_differs_with_every_setting_of_a_world_but_its_name(world):
    base = run_config(world=world)
    own = {f"world.{name}": value for name, value in leaves(world).items() if name != "name"}
    found = {digest(changed(base, key, another(value))) for key, value in own.items()}
    assert len(found | {digest(base)}) == 1 + len(own)


def test_the_digest_differs_between_kinds_of_the_same_settings():
    configs = [run_config(model=ModelConfig(ffn=layer())) for layer in LAYERS]
    configs += [run_config(model=ModelConfig(residual=layer())) for layer in LAYERS]
    configs += [run_config(match=MatchConfig(reference=layer())) for layer in LAYERS]
    memory = ModelConfig(ffn=Memory())
    configs += [run_config(model=memory, optim=OptimConfig(values=rule(lr=1.0))) for rule in RULES.values()]
    configs += [run_config(world=world) for world in (AtlasConfig(), TriplesConfig())]
    configs += [run_config(trainer={}), run_config(trainer={"accelerator": "gpu"})]
    assert len({digest(config) for config in configs}) == len(configs)


def test_what_decides_is_what_differs_from_the_defaults_and_the_kinds_of_layers_rules_and_worlds():
    kinds = {"world": "AtlasConfig", "model.ffn": "Memory", "model.residual": "NGram", "model.before": "ShortConv"}
    kinds |= {"match.reference": "Memory", "optim.values": "LazyAdam"}
    # The warm-up of a rule's schedule is linear here, which is not the rule's own default.
    wanted = CHANGES | {f"{key}.kind": kind for key, kind in kinds.items()} | {"optim.values.schedule.shape": "linear"}
    assert flatten(decisive(FULL)) == wanted
    assert decisive(run_config()) == {"world": {"kind": "BiographiesConfig"}}
    assert decisive(run_config(model=ModelConfig(ffn=Dense()))) == decisive(run_config())


def test_settings_are_all_leaves_and_the_kinds():
    flat = flatten(settings(FULL))
    kinds = {key for key in flat if key.endswith(".kind")}
    assert {key: value for key, value in flat.items() if key not in kinds} == {
        key: value
        for key, value in leaves(FULL).items()
        if key != "axes"  # empty
    }
    assert len(kinds) == 8 and flat["model.before.kind"] == "ShortConv"


def added(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field more, with a default, as a later version may have it."""
    field = dataclasses.make_dataclass("Later", [("later", int, 7)]).__dataclass_fields__["later"]  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "__dataclass_fields__", kind.__dataclass_fields__ | {"later": field})  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "later", 7, raising=False)


def kinds_in(node: Any) -> set[type]:
    """Of all settings, this one included."""
    if isinstance(node, dict):
        return set().union(*map(kinds_in, node.values()))
    return {type(node)}.union(*map(kinds_in, vars(node).values())) if dataclasses.is_dataclass(node) else set()


@pytest.mark.parametrize("kind", sorted(kinds_in(FULL), key=lambda kind: kind.__name__))
def test_a_new_setting_with_a_default_leaves_every_digest_as_it_was(kind, monkeypatch):
    configs = [FULL, run_config(), run_config(**KINDS), *(run_config(world=world) for world in WORLDS)]
    before = [digest(config) for config in configs]
    added(kind, monkeypatch)
    assert any(key.endswith("later") for key in leaves(FULL))
    assert [digest(config) for config in configs] == before


@pytest.mark.parametrize("key", ["path", "templates"])
def test_the_digest_follows_what_a_users_file_says_and_not_where_it_lies(tmp_path, key):
    def digest_of(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return digest(run_config(world=TriplesConfig(**{"path": "facts.csv", key: str(tmp_path / name)})))

    first = digest_of("one", "a")
    assert first == digest_of("two", "a") == digest_of("one", "a") != digest_of("one", "b")


def test_the_digest_follows_what_running_text_says_and_not_where_it_lies(tmp_path, monkeypatch):
    def digest_of(*sources: str) -> str:
        corpus = CorpusConfig(share=0.5, sources=[str(tmp_path / source) for source in sources])
        return digest(run_config(world=BiographiesConfig(corpus=corpus)))

    for folder, texts in {"one": "ab", "two": "ab", "three": "abc"}.items():
        (tmp_path / folder / "in").mkdir(parents=True)
        for text in texts:
            (tmp_path / folder / "in" / f"{text}.txt").write_text(f"text {text}")
    first = digest_of("one")
    assert first == digest_of("two") != digest_of("three")
    assert digest_of("one", "three") != digest_of("three", "one")
    (tmp_path / "one" / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    assert digest_of("one") == first
    (tmp_path / "one" / "in" / "a.txt").write_text("another text a")
    assert digest_of("one") != first
    (tmp_path / "two" / "in" / "b.txt").unlink()
    assert digest_of("two") not in (first, digest_of("one"))
    assert digest_of("missing") != digest_of("gone")


@pytest.mark.parametrize("source", ["code", "docs"])
def test_the_digest_follows_the_text_of_the_installed_python(source, tmp_path, monkeypatch):
    monkeypatch.setattr("memlayers.running_text.stdlib", lambda: tmp_path)
    config = run_config(world=BiographiesConfig(corpus=CorpusConfig(share=0.5, sources=[source])))
    (tmp_path / "a.py").write_text("x = 1\n")
    first = digest(config)
    (tmp_path / "a.py").write_text("x = 11\n")
    assert digest(config) != first
    unused = run_config(world=BiographiesConfig(corpus=CorpusConfig()))
    assert digest(unused) == digest(run_config(world=BiographiesConfig()))


def test_the_digest_is_twelve_hexadecimal_digits_of_values_not_of_order():
    assert len(digest(FULL)) == 12 and int(digest(FULL), 16) >= 0
    turned = copy.deepcopy(FULL)
    turned.trainer = dict(reversed(FULL.trainer.items()))
    turned.optim.roles = dict(reversed(FULL.optim.roles.items()))
    assert digest(turned) == digest(FULL)
    moved = changed(FULL, "world.relations", ["a", "b"])
    assert digest(moved) != digest(changed(FULL, "world.relations", ["b", "a"]))
