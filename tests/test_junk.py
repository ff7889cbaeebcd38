"""Junk beside the facts: who it is about, how often it comes, and what tells it from what is worth learning."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from commands import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.config.text import JunkConfig
from memlayers.facts.biographies import build_biographies
from memlayers.facts.drawing import nth_free
from memlayers.facts.world import PAD, known_facts
from memlayers.text import TAG, Text, text_of

BASE = BiographiesConfig(name="biographies", num_people=60, name_parts=[20, 20, 20], cardinalities=[7, 7, 7])


def text_with(share: float, tag: bool = False, **settings) -> Text:
    return text_of(replace(BASE, junk=JunkConfig(share, tag), **settings))


def names_in(text: Text, rows: torch.Tensor) -> list[tuple[int, ...]]:
    """The three tokens of the first name in each row."""
    ids = {index for index, token in enumerate(text.vocabulary) if token.startswith(("first", "middle", "last"))}
    return [tuple(token for token in row if token in ids)[:3] for row in rows.tolist()]


@settings(deadline=None)
@given(st.sets(st.integers(0, 40)), st.data())
def test_the_nth_free_number_is_that_of_a_list(taken, data):
    free = [number for number in range(60) if number not in taken]
    index = data.draw(st.lists(st.integers(0, len(free) - 1)))
    found = nth_free(torch.tensor(index, dtype=torch.long), torch.tensor(sorted(taken)[::-1], dtype=torch.long))
    assert found.tolist() == [free[one] for one in index]


@pytest.mark.parametrize("style", ["terse", "prose"])
@pytest.mark.parametrize("document", ["fact", "subject"])
def test_junk_is_as_frequent_as_named_and_about_nobody_whom_the_world_knows(style, document):
    text, rows = text_with(0.75, text=style, document=document), 4_000
    world = text.world
    known = {tuple(row) for row in world.subjects.tolist()}
    unknown = {tuple(row) for row in world.unknown.tolist()}
    names = Counter(names_in(text, text.sample(rows, seeded(3)).tokens))
    about = sum(count for name, count in names.items() if name in known)
    assert abs(about - 0.25 * rows) < 5 * math.sqrt(rows * 0.25 * 0.75)
    junk = {name: count for name, count in names.items() if name not in known}
    assert not unknown & set(junk)
    assert len(junk) > 1_500  # of 3,000, drawn from 5,940
    assert math.isclose(text.mean_exposures, 0.25 * Text(replace(world, junk=None), style, document).mean_exposures)


def test_strangers_are_drawn_evenly_over_names_that_are_free_and_over_objects():
    config = replace(BASE, num_people=2, name_parts=[3, 4, 2], cardinalities=[3, 5], junk=JunkConfig(0.5))
    junk = build_biographies(config).junk
    free = replace(junk, taken=junk.taken[:5])
    names, facts = free.draw(19_000, seeded(1))
    counts = Counter(tuple(name) for name in names.tolist())
    assert len(counts) == free.num_names == 24 - 5
    squares = sum((count - 1_000) ** 2 / 1_000 for count in counts.values())
    assert squares < 18 + 5 * math.sqrt(2 * 18)  # chi-square with 18 degrees of freedom
    for column, size in zip(facts.T, (3, 5), strict=True):
        assert abs(column.double().mean() - (size - 1) / 2) < 5 * math.sqrt((size**2 - 1) / 12 / 19_000)


@pytest.mark.parametrize("style", ["terse", "prose"])
def test_a_tag_stands_before_what_is_about_subjects_and_before_questions_alone(style):
    text = text_with(0.5, tag=True, text=style)
    known = {tuple(row) for row in text.world.subjects.tolist()}
    tag = text.vocabulary.index(TAG)
    rows = text.sample(400, seeded(3)).tokens
    for name, row in zip(names_in(text, rows), rows.tolist(), strict=True):
        assert (name in known) == (row[0] == tag)
        assert tag not in row[1:] and PAD not in row[: len(row) - row.count(PAD)]
    asked = text.probe(known_facts(text.world), "training", seeded()).documents
    assert (asked.tokens[:, 0] == tag).all() and not asked.answers[:, 0].any()
    plain = text_with(0.5, text=style)
    without = plain.probe(known_facts(text.world), "training", seeded()).documents
    assert asked.tokens[:, 1:].equal(without.tokens) and asked.answers[:, 1:].equal(without.answers)
    assert TAG not in plain.vocabulary


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["world.junk.share=1"], "world.junk.share=1.0"),
        (["world.junk.tag=true"], "world.junk.tag=true has no effect"),
        (
            ["world.junk.share=0.5", "world=biographies_prose", "world.prose.pieces=500"],
            "world.prose.pieces=500 with world.junk.share=0.5",
        ),
        (
            ["world.junk.share=0.5", "world=biographies_prose", "world.context.source=given"],
            "world.context.source=given with world.junk.share=0.5",
        ),
        (["world.junk.share=0.5", "world=atlas_airports"], "world.junk.share=0.5: unknown key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused(words, named):
    world = [] if any(word.startswith("world=") for word in words) else ["world=biographies"]
    assert refusal(*world, *words).startswith(named)


def test_a_world_without_a_free_name_is_refused():
    config = replace(BASE, num_people=8, name_parts=[2, 2, 2], junk=JunkConfig(0.5))
    with pytest.raises(ValueError, match=r"world.name_parts=\[2, 2, 2\] leaves 0 names for world.junk.share=0.5, "):
        build_biographies(config)
    with pytest.raises(ValueError, match=r"leaves 0 names .* and 940 unknown people; .* which leave 60 or more"):
        build_biographies(replace(BASE, name_parts=[10, 10, 10], junk=JunkConfig(0.5)))
