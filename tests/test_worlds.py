"""Worlds against closed forms and against the packages' own data."""

import math
import sys
from collections import Counter
from itertools import product

import airportsdata
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pypinyin.contrib.tone_convert import to_tone3
from pypinyin.pinyin_dict import pinyin_dict

from memlayers.config import AtlasConfig, BiographiesConfig
from memlayers.facts import World, build_world
from memlayers.facts.atlas import load_facts
from memlayers.facts.drawing import sample_distinct, to_digits, to_ranks
from memlayers.facts.spelling import byte_pairs, code_bytes, letters, make_speller, pairs, spell
from memlayers.facts.world import END, PAD, Vocabulary

AIRPORTS = airportsdata.load("IATA")
READINGS = {chr(code): pinyin_dict[code].split(",")[0] for code in range(0x4E00, 0xA000) if code in pinyin_dict}


def build(kind: str, **settings) -> World:
    """Biographies, readings, or airports in the spelling of that name."""
    if kind == "biographies":
        return build_world(BiographiesConfig(**settings))
    where = {"source": "readings"} if kind == "readings" else {"source": "airports", "spelling": kind}
    return build_world(AtlasConfig(**where, **settings))


def texts(world: World, table: torch.Tensor) -> list[tuple[str, ...]]:
    return [tuple(world.vocabulary[token] for token in row if token != PAD) for row in table.tolist()]


def answers(world: World, relation: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    index = world.relations.index(relation)
    objects, rows = texts(world, world.objects[index]), world.facts[:, index].tolist()
    return {name: objects[row] for name, row in zip(texts(world, world.subjects), rows, strict=True) if row >= 0}


def bits(values) -> float:
    counts = torch.tensor(list(Counter(values).values()), dtype=torch.float64)
    return float((counts / counts.sum() * (counts.sum() / counts).log2()).sum())


@pytest.mark.parametrize("kind", ["biographies", "readings", "letters", "pairs", "bytes", "bpe"])
def test_every_world_keeps_the_contract_and_its_templates_can_be_asked(kind):
    size = {"num_people": 3_000, "cardinalities": [16] * 8} if kind == "biographies" else {"num_subjects": 3_000}
    world, again, other = (build(kind, seed=seed, **size) for seed in (3, 3, 4))
    subjects, unknown = texts(world, world.subjects), texts(world, world.unknown)
    assert len(set(subjects)) == 3_000 and len(set(unknown)) == 2_000 and set(unknown).isdisjoint(subjects)
    assert world.unknown.shape[1] == world.subjects.shape[1] and torch.isin(world.unknown, world.subjects).all()
    assert (world.weights > 0).equal(world.facts >= 0) and (world.facts >= 0).any(dim=1).all()
    for index, table in enumerate(world.objects):
        assert world.prior(index).sum() == pytest.approx(1.0, abs=1e-12)
        assert len(table.unique(dim=0)) == len(table) > int(world.facts[:, index].max())
        assert (table > END).all() and not torch.isin(table, world.subjects).any()
    tables = ("subjects", "facts", "weights", "unknown")
    assert world.vocabulary == again.vocabulary and all(getattr(world, t).equal(getattr(again, t)) for t in tables)
    assert set(texts(other, other.subjects)) != set(subjects)
    for entry in world.templates:
        train, held_out = [[template.split() for template in group] for group in (entry.train, entry.held_out)]
        assert len(train) == 40 and len(held_out) >= 8
        assert all(words.count("{subject}") == words.count("{object}") == 1 for words in train + held_out)
        assert set().union(*train, *held_out).isdisjoint(world.vocabulary)


def test_spellings_of_known_names():
    assert letters("SYD") == ["S", "Y", "D"] and pairs("SYD") == ["SY", "YD"] and pairs("S") == ["S"]
    assert code_bytes("中") == ["hi:4e", "lo:2d"] and code_bytes("SYD") == ["byte:53", "byte:59", "byte:44"]
    merge_all = byte_pairs(["Zyx Field", "Grand Field", "Grand Lake"], 10_000)
    assert merge_all("Grand Field") == ["bpe:ĠGrand", "bpe:ĠField"] and len(merge_all("Zyx Field")) > 2
    for names, message in ((["SYD"] * 2, "'SYD' and 'SYD' have the same spelling"), ([""], "an empty name")):
        with pytest.raises(ValueError, match=message):
            spell(names, pairs, Vocabulary())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1), unique=True, min_size=1))
def test_distinct_names_get_distinct_rows(names):
    for spelling in ("letters", "pairs", "bytes", "bpe"):
        rows = spell(names, make_speller(spelling, names, num_bpe_tokens=300), Vocabulary())
        assert len(set(map(tuple, rows))) == len(names)


@pytest.mark.parametrize(("kind", "most"), {"readings": 82 + 256, "letters": 26, "pairs": 26**2, "bytes": 26}.items())
def test_no_token_of_a_whole_source_belongs_to_one_subject(kind, most):
    world = build(kind)
    owners = Counter(token for row in world.subjects.tolist() for token in set(row))
    assert len(owners) <= most and min(owners.values()) >= 2 and owners.keys().isdisjoint((PAD, END))


def test_readings_are_those_of_the_package():
    world = build("readings")
    (row,) = world.statistics()
    assert (row.num_facts, row.num_objects) == (len(READINGS), len(set(READINGS.values()))) == (20_924, 1_379)
    assert row.entropy == pytest.approx(bits(READINGS.values())) == pytest.approx(9.69, abs=0.005)
    assert world.joint_entropy() == pytest.approx(row.entropy) and world.objects[0].shape == (1_379, 2)
    known = answers(world, "reading")
    for name, reading in READINGS.items():
        assert "".join(known[tuple(code_bytes(name))]) == to_tone3(reading, v_to_u=True, neutral_tone_with_five=True)
    assert [known[tuple(code_bytes(name))] for name in "好律路"] == [("hao", "3"), ("lü", "4"), ("lu", "4")]
    assert set(texts(world, world.unknown)) == set(product(*map(set, zip(*known, strict=True)))) - set(known)
    small, large = (answers(build("readings", num_subjects=size), "reading").items() for size in (400, 900))
    assert small < large < known.items()


def test_airports_are_those_of_the_package():
    world = build("letters")
    columns = {"country": "country", "time_zone": "tz", "subdivision": "subd"}
    bands = {"latitude": ("lat", 5), "longitude": ("lon", 10), "elevation": ("elevation", 200)}
    objects = {name: {code: row[column] for code, row in AIRPORTS.items()} for name, column in columns.items()}
    for name, (column, width) in bands.items():
        objects[name] = {c: str(min(math.floor(row[column] / width) * width, 8000)) for c, row in AIRPORTS.items()}
    statistics = {row.name: row for row in world.statistics()}
    for relation, values in objects.items():
        expected = {tuple(code): (f"{relation}:{value}",) for code, value in values.items() if value}
        assert answers(world, relation) == expected
        assert statistics[relation].entropy == pytest.approx(bits(expected.values()))
    assert world.joint_entropy() == pytest.approx(bits(map(tuple, world.facts.tolist())))
    icao = {tuple(code): row["icao"] for code, row in AIRPORTS.items() if row["icao"][0] != "_"}
    assert answers(world, "icao") == {code: tuple(f"icao:{letter}" for letter in icao[code]) for code in icao}
    assert sum(tuple(icao[code][1:]) == code for code in icao) == 1_803  # as the docstring of atlas.py warns
    unknown = {"".join(code) for code in texts(world, world.unknown)}
    assert len(unknown) == 2_000 and unknown.isdisjoint(AIRPORTS) and set(map(len, unknown)) == {3}


def test_airports_that_are_left_out_are_noted():
    world = build("letters", relations=["subdivision"])
    assert len(world.subjects) == 7_543 and world.notes == ("341 subjects left out: no fact in subdivision",)
    names = {" ".join(row["name"].split()).removesuffix(" Airport") for row in AIRPORTS.values()}
    world = build("bpe")
    assert (len(world.subjects), len(world.unknown)) == (len(names), 2_000) and len(world.subjects.unique()) <= 1_001
    dropped, alone = world.notes
    assert dropped == f"{7_884 - len(names)} airports dropped: an earlier IATA code has the same name"
    times = Counter(token for row in world.subjects.tolist() for token in {*row} - {PAD})
    own = sum(any(times[token] == 1 for token in row) for row in world.subjects.tolist())
    assert (
        alone == f"{own} of {len(names)} subjects have a token that no other has, where a fact can hide" and own < 100
    )


def test_biographies_hold_the_bits_and_the_weights_of_the_closed_form():
    config = BiographiesConfig(num_people=20_000, cardinalities=[2, 16, 100, 7])
    closed = 1 + 4 + math.log2(100) + math.log2(7)
    assert sum(row.entropy for row in build_world(config).statistics()) == pytest.approx(closed, abs=0.01)
    assert build("biographies", num_people=20_000, cardinalities=[8, 8]).joint_entropy() == pytest.approx(6, abs=0.01)
    world = build("biographies", num_people=10, name_parts=[3] * 4, cardinalities=[4] * 7)
    assert [part[:-2] for part in texts(world, world.subjects)[0]] == ["first", "middle", "middle_2", "last"]
    assert world.relations[5:] == ("hobby", "attribute_7") and "hobby_3" in world.vocabulary
    weights = build("biographies", num_people=100, zipf=1.5).weights
    assert (weights == weights[:, :1]).all() and not weights.sort(descending=True, dim=0).values.equal(weights)
    assert weights[:, 0].sort(descending=True).values.tolist() == pytest.approx([rank**-1.5 for rank in range(1, 101)])
    assert (build("biographies", num_people=100).weights == 1).all()


def test_a_million_people_and_an_exhausted_product():
    world = build("biographies", num_people=1_000_000, name_parts=[400, 400, 1000], cardinalities=[256], zipf=1.0)
    everyone = to_ranks(torch.cat([world.subjects, world.unknown]), [len(world.vocabulary)] * 3)
    assert len(everyone.unique()) == 1_002_000
    few = build("biographies", num_people=990, name_parts=[10, 10, 10])
    assert len(few.unknown) == 10 and len(torch.cat([few.subjects, few.unknown]).unique(dim=0)) == 1_000
    assert build("biographies", num_people=1_000, name_parts=[10, 10, 10]).unknown.shape == (0, 3)


@settings(deadline=None)
@given(st.data(), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_samples_are_distinct_and_digits_can_be_read_back(data, sizes):
    total = math.prod(sizes)
    taken = data.draw(st.sets(st.integers(0, total - 1), max_size=min(total, 50)))
    count = data.draw(st.integers(0, total - len(taken)))
    blocked = torch.tensor(sorted(taken), dtype=torch.long)
    sample = sample_distinct(count, total, torch.Generator().manual_seed(0), blocked)
    assert len({*sample.tolist(), *taken}) == count + len(taken) and ((sample >= 0) & (sample < total)).all()
    digits = to_digits(sample, sizes)
    assert (digits < torch.tensor(sizes)).all() and to_ranks(digits, sizes).equal(sample)


def test_a_mistake_is_one_line_that_names_key_value_and_what_is_accepted():
    mistakes = {
        "num_subjects=30000 is too large; accepted: 2 to 20924": AtlasConfig(num_subjects=30_000),
        "relations='tone' is not known; accepted: reading": AtlasConfig(relations=["tone"]),
        "relations='city' .* country, .*, icao": AtlasConfig(source="airports", relations=["country", "city"]),
        r"relations=\[\] is empty or repeats; accepted: reading": AtlasConfig(relations=[]),
        r"name_parts=.*; accepted: a product of 2\*\*62 or less": BiographiesConfig(name_parts=[2**21] * 3),
    }
    for message, config in mistakes.items():
        with pytest.raises(ValueError, match=rf"^world\.{message}$"):
            build_world(config)


def test_a_package_that_is_missing_or_holds_other_data_is_named(monkeypatch):
    load_facts.cache_clear()
    monkeypatch.setitem(pinyin_dict, ord("中"), "zhòng")
    with pytest.raises(ValueError, match=r"pypinyin 0.55.0 holds other facts; accepted: pip install pypinyin==0.55.0$"):
        build("readings")
    monkeypatch.setitem(sys.modules, "airportsdata", None)
    with pytest.raises(ValueError, match=r"needs the package airportsdata; accepted: .* airportsdata==20260905$"):
        build("letters")
