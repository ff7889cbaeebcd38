"""Worlds small enough to enumerate, their documents written with strings and loops, and configurations."""

import copy
import csv
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memlayers.config import AtlasConfig, BiographiesConfig, RunConfig, TrainingConfig, TriplesConfig
from memlayers.facts import World, build_world
from memlayers.facts.world import PAD
from memlayers.text import Text

KINDS = ("readings", "airports", "biographies", "triples")
WRITINGS = [(kind, style) for kind in KINDS for style in ("terse", "prose")]
PHRASINGS = ("training", "held_out", "questions", "held_out_questions")
Template = tuple[str, ...]  # its parts, "{subject}" and "{object}" among them


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def small_world(kind: str) -> World:
    """60 subjects, but for the 20 of the file: weights, missing facts, objects of one to three words, END."""
    if kind == "readings":
        return build_world(AtlasConfig(name=kind, source=kind, num_subjects=60))
    if kind == "airports":
        return build_world(AtlasConfig(name=kind, source=kind, spelling="pairs", num_subjects=60))
    if kind == "biographies":
        sizes = {"num_people": 60, "name_parts": [6] * 3, "cardinalities": [8] * 3}
        return build_world(BiographiesConfig(name=kind, **sizes, zipf=1))
    return file_world()


def file_world() -> World:
    """20 invented people; "based in" is missing for a third of them, and a city holds the dot that ends sentences."""
    rows = []
    for index in range(24):
        if index % 6 == 5:
            continue  # its name is left for an unknown subject
        name = f"{('Ada', 'Bo', 'Cy', 'Di')[index % 4]} {('Ek', 'Fu', 'Go', 'Hi', 'Ib', 'Jo')[index // 4]}"
        weight = str(1 + index % 5)
        rows.append((name, "born in", ("Rome", "St . Ives", "Oslo", "New York")[index * 7 % 4], weight))
        rows.append((name, "pet", ("cat", "dog", "eel")[index * 5 % 3], "0.5"))
        if index % 3:
            rows.append((name, "based in", ("Lima", "Kyiv", "Cork")[index * 11 % 3], str(3 * (index % 2) + 1)))
    templates = {
        "born in": {
            "train": ["{subject} was born in {object}", "{object} saw the birth of {subject}"],
            "held_out": ["in {subject} we see one born in {object}"],
            "questions": ["where was {subject} born ? {object}"],
            "held_out_questions": ["say where {subject} was born : {object}", "{subject} was born where ? {object}"],
        },
        "pet": ["{subject} has a {object}", "a {object} lives with {subject}", "{subject} feeds the {object}"],
        "based in": {"train": ["{subject} lives in {object}", "of {subject} the home is {object} now"]},
    }
    with tempfile.TemporaryDirectory() as folder:
        facts, sentences = Path(folder) / "facts.csv", Path(folder) / "templates.json"
        with open(facts, "w", newline="") as file:
            csv.writer(file).writerows([("subject", "relation", "object", "weight"), *rows])
        sentences.write_text(json.dumps(templates))
        return build_world(TriplesConfig(name="triples", path=str(facts), templates=str(sentences)))


# --------------------------------------------------------------------------- text, with loops


def spelt(world: World, row: Tensor) -> list[str]:
    return [world.vocabulary[token] for token in row.tolist() if token != PAD]


def name_of(world: World, subject: int) -> list[str]:
    """Known subjects first, then the unknown ones."""
    known = len(world.subjects)
    return spelt(world, world.subjects[subject] if subject < known else world.unknown[subject - known])


def templates_of(world: World, style: str, relation: int, phrasing: str) -> list[Template]:
    """`train`, `training` (those of them that can be asked), or one of the other kinds."""
    is_trained = phrasing in ("train", "training")
    if style == "terse":
        return [("{subject}", f"[{world.relations[relation]}]", "{object}")] if is_trained else []
    entry = world.templates[relation]
    found = [tuple(one.split()) for one in (entry.train if is_trained else getattr(entry, phrasing))]
    if phrasing == "training":
        found = [one for one in found if one.index("{subject}") < one.index("{object}")]
    return found


def write(
    world: World, style: str, subject: int, told: list[tuple[int, Template]], facts: Tensor | None = None
) -> tuple[list[str], list[bool]]:
    """A document of (relation, template) about a subject: its words, and which of them are answers."""
    words: list[str] = []
    marks: list[bool] = []
    for index, (relation, template) in enumerate(told):
        seen = index > 0 and style == "terse"
        for part in template:
            if part == "{subject}":
                piece, mark = [] if seen else name_of(world, subject), False
                seen = True
            elif part == "{object}":
                row = max(int((world.facts if facts is None else facts)[subject, relation]), 0)
                piece, mark = spelt(world, world.objects[relation][row]), seen
            else:
                piece, mark = [part], False
            words += piece
            marks += [mark] * len(piece)
        if style == "prose":
            words.append(".")
            marks.append(False)
    return words, marks


def sentences(world: World, style: str, phrasing: str) -> Iterator[tuple[int, int, list[str], list[bool]]]:
    """Every sentence about every fact: subject, relation, words, answers."""
    for subject, relation in (world.facts >= 0).nonzero().tolist():
        for template in templates_of(world, style, relation, phrasing):
            yield subject, relation, *write(world, style, subject, [(relation, template)])


def question(world: World, subject: int, template: Template) -> list[str]:
    """What stands before the answer, of known and unknown subjects."""
    before = template[: template.index("{object}")]
    return [word for part in before for word in (name_of(world, subject) if part == "{subject}" else [part])]


def ids_of(text: Text) -> dict[str, int]:
    return {word: index for index, word in enumerate(text.vocabulary)}


# --------------------------------------------------------------------------- configurations


def run_config(**changes) -> RunConfig:
    """A configuration built without Hydra."""
    return RunConfig(**({"world": BiographiesConfig(name="bio")} | changes))


def tiny(folder: Path, steps: int = 2, **changes) -> RunConfig:
    """A run of 20 people whose records go to this folder; with a few steps it takes a tenth of a second."""
    world = BiographiesConfig(name="bio", num_people=20, name_parts=[5, 5], cardinalities=[4, 4])
    training = TrainingConfig(steps=steps, batch_tokens=64, probes=1)
    own = {"world": world, "training": training, "results": str(folder), "progress": "none"}
    return run_config(**own | changes)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of every setting, through dataclasses and dictionaries."""
    if dataclasses.is_dataclass(node):
        node = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {key: leaf for name, value in node.items() for key, leaf in leaves(value, f"{prefix}{name}.").items()}


def changed(config: RunConfig, key: str, value: Any) -> RunConfig:
    """A copy with another value under a dotted key."""
    config = copy.deepcopy(config)
    node: Any = config
    *path, last = key.split(".")
    for name in path:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    if isinstance(node, dict):
        node[last] = value
    else:
        setattr(node, last, value)
    return config
