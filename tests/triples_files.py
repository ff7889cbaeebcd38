"""Files of facts and of templates, and the worlds that are built from them."""

import json
from pathlib import Path

import pytest
import torch

from memlayers.config import TriplesConfig
from memlayers.facts import World, build_world
from memlayers.facts.triples import MAX_UNKNOWN
from memlayers.facts.world import END, PAD
from memlayers.text import Text

HEADER = "subject,relation,object\n"
FACTS = HEADER + "Ada King,born in,London\nAlan Turing,born in,Paddington Green\nAda King,died in,Marylebone\n"
FACTS += "Alan Turing,died in,Wilmslow\n"


def build(tmp_path: Path, content: str | bytes, name: str = "facts.csv", **options) -> World:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return build_world(TriplesConfig(name="mine", path=str(path), **options))


def told(tmp_path: Path, templates: object, content: str = FACTS, **options) -> World:
    path = tmp_path / "templates.json"
    path.write_text(templates if isinstance(templates, str) else json.dumps(templates), encoding="utf-8")
    return build(tmp_path, content, templates=str(path), **options)


def names(world: World, table: torch.Tensor, join: str = " ") -> list[str]:
    return [join.join(world.vocabulary[token] for token in row if token not in (PAD, END)) for row in table.tolist()]


def facts(world: World, join: str = " ") -> dict[tuple[str, str], tuple[str, float]]:
    """(subject, relation) -> (object, weight)"""
    subjects, known = names(world, world.subjects, join), {}
    objects = [names(world, table) for table in world.objects]
    for subject, relation in (world.facts >= 0).nonzero().tolist():
        value = objects[relation][world.facts[subject, relation]]
        known[subjects[subject], world.relations[relation]] = (value, world.weights[subject, relation].item())
    return known


def keep_the_contract(world: World) -> None:
    assert (world.facts >= 0).equal(world.weights > 0) and (world.facts >= 0).any(dim=1).all()
    assert len(world.subjects.unique(dim=0)) == len(world.subjects) and END not in world.subjects
    assert world.unknown.shape[1] == world.subjects.shape[1] and len(world.unknown) <= MAX_UNKNOWN
    assert set(map(tuple, world.unknown.tolist())).isdisjoint(map(tuple, world.subjects.tolist()))
    lengths = (world.subjects != PAD).sum(dim=1), (world.unknown != PAD).sum(dim=1)
    assert set(world.unknown.unique().tolist()) <= {PAD, *world.subjects.unique().tolist()}
    assert set(lengths[1].tolist()) <= set(lengths[0].tolist())
    assert len(set(world.vocabulary)) == len(world.vocabulary)
    for index, table in enumerate(world.objects):
        used = world.facts[:, index].unique()
        assert used[used >= 0].tolist() == list(range(len(table)))  # no object without a fact
        rows = [tuple(token for token in row if token != PAD) for row in table.tolist()]
        assert not any(a != b and b[: len(a)] == a for a in rows[:50] for b in rows[:50])
    assert not any("\n" in note for note in world.notes)
    Text(world, "terse").sample(4, torch.Generator())


def said(world: World, part: str) -> str:
    found = [note for note in world.notes if part in note]
    assert len(found) == 1, world.notes
    return found[0]


def wrong(action) -> str:
    with pytest.raises(ValueError) as caught:
        action()
    message = str(caught.value)
    assert message and "\n" not in message and "\r" not in message
    return message
