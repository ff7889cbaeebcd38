"""The user's own facts: what is written comes back, and a file is as large as it may be."""

import csv
import json
import random
import re
import tempfile
import time
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triples_files import FACTS, HEADER, build, facts, keep_the_contract, names, said

from memlayers.config import TriplesConfig
from memlayers.facts import World, build_world
from memlayers.facts.triples import MAX_UNKNOWN, RESERVED
from memlayers.facts.world import END

# --------------------------------------------------------------------------- round trip


def as_file(rows: list[tuple[str, str, str, float]], extension: str, ends: str = "\r\n") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        with open(path, "w", encoding="utf-8", newline="") as file:
            if extension == ".jsonl":
                for subject, relation, value, weight in rows:
                    record = {"object": value, "weight": weight, "subject": subject, "relation": relation}
                    file.write(json.dumps(record, ensure_ascii=len(subject) % 2 == 0) + ends)
            else:
                dialect = "excel" if extension == ".csv" else "excel-tab"
                quoting = csv.QUOTE_ALL if ends == "\n" else csv.QUOTE_MINIMAL  # which leaves "\r" bare before 3.13
                writer = csv.writer(file, dialect, lineterminator=ends, quoting=quoting)
                writer.writerows([("relation", "subject", "weight", "object")])
                writer.writerows((relation, subject, repr(weight), value) for subject, relation, value, weight in rows)
        return path.read_bytes()


def naive_clean(text: str) -> str:
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()


def naive_facts(rows) -> dict[tuple[str, str], tuple[str, float]]:
    weights: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for *cells, weight in rows:
        subject, relation, value = map(naive_clean, cells)
        if subject and relation and value:
            rivals = weights[subject, relation]
            rivals[value] = rivals.get(value, 0.0) + weight
    return {key: max(rivals.items(), key=lambda item: item[1]) for key, rivals in weights.items()}


few = st.sampled_from(["a", "b", "á", "a\u0301", "a b", " a\tb\r\n", 'say "a, b"', "'", "\ufeffa", "北京", "𐍈", ""])
texts = few | st.text(st.characters(codec="utf-8"), max_size=8)  # hypothesis tries the constants of our code too
texts = texts.filter(lambda text: RESERVED.isdisjoint([*text.split(), *f"<{naive_clean(text)}>".split()]))
triples = st.tuples(
    texts, st.sampled_from(["born in", "é", "e\u0301"]) | texts, texts, st.sampled_from([1.0, 2.0, 0.25])
)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(triples, max_size=30),
    extension=st.sampled_from([".csv", ".tsv", ".jsonl"]),
    ends=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    letters=st.booleans(),
)
def test_facts_come_back_as_they_were_written(rows, extension, ends, bom, letters):
    for index, relation in enumerate({naive_clean(row[1]) for row in rows} - {""} or {"r"}):  # two objects in each
        rows = [*rows, (f"one {index}", relation, "x", 1.0), (f"two {index}", relation, "y z", 1.0)]
    content = (b"\xef\xbb\xbf" if bom else b"") + as_file(rows, extension, ends)
    with tempfile.TemporaryDirectory() as folder:
        world = build(Path(folder), content, f"facts{extension}", spelling="letters" if letters else "words")
    keep_the_contract(world)
    assert facts(world, "" if letters else " ") == naive_facts(rows)


def test_one_small_file_in_full(tmp_path):
    world = build(tmp_path, FACTS)
    keep_the_contract(world)
    assert world.relations == ("born in", "died in") and world.templates == () and world.name == "mine"
    assert names(world, world.subjects) == ["Ada King", "Alan Turing"]
    assert [names(world, table) for table in world.objects] == [
        ["London", "Paddington Green"],
        ["Marylebone", "Wilmslow"],
    ]
    assert (world.objects[0] == END).sum(dim=1).tolist() == [1, 1] and END not in world.objects[1]
    assert sorted(names(world, world.unknown)) == ["Ada Turing", "Alan King"]
    assert "2 of 2 subjects have a word that no other has" in world.notes[0] and len(world.notes) == 1


def test_three_formats_give_one_world(tmp_path):
    rows = [("Ada", "born in", "London", 2.0), ("Alan", "born in", "Paddington", 1.0)]
    worlds = [build(tmp_path, as_file(rows, end), f"f{end}") for end in (".csv", ".tsv", ".jsonl")]
    worlds.append(build(tmp_path, as_file(rows, ".csv"), "f.CSV"))
    for world in worlds[1:]:
        assert facts(world) == facts(worlds[0]) and world.vocabulary == worlds[0].vocabulary
        assert world.facts.equal(worlds[0].facts) and world.notes == worlds[0].notes


# --------------------------------------------------------------------------- unknown subjects


def test_unknown_subjects_recombine_words_by_position(tmp_path):
    people = [f"first{i % 60} last{i // 60}" for i in range(0, 6000, 2)] + ["Madonna", "Ann van Dam", "Bo de Wit"]
    content = HEADER + "".join(f"{name},r,{index % 9}\n" for index, name in enumerate(people))
    world, again, other = (build(tmp_path, content, seed=seed) for seed in (0, 0, 1))
    keep_the_contract(world)
    unknown = names(world, world.unknown)
    assert len(set(unknown)) == len(unknown) and "Madonna" not in unknown
    shapes = re.compile(r"first\d+ last\d+|(Ann|Bo) (van|de) (Dam|Wit)")
    assert all(shapes.fullmatch(name) for name in unknown)
    assert world.unknown.equal(again.unknown) and names(other, other.unknown) != unknown


def test_unknown_subjects_of_a_large_world_are_two_thousand(tmp_path):
    generator = random.Random(0)
    people = {f"f{generator.randrange(500)} l{generator.randrange(500)}" for _ in range(3000)}
    content = HEADER + "".join(f"{name},r,{index % 9}\n" for index, name in enumerate(sorted(people)))
    assert len(build(tmp_path, content).unknown) == MAX_UNKNOWN


def test_unknown_subjects_of_one_word(tmp_path):
    content = HEADER + "London,r,x\nParis,r,y\nBerlin,r,z\n"
    words = build(tmp_path, content)
    assert words.unknown.shape == (0, 1) and said(words, "no unknown subjects")
    letters = build(tmp_path, content, spelling="letters")
    halves = [("Lon", "Pa", "Ber"), ("don", "ris", "lin")]
    possible = {a + b for a in halves[0] for b in halves[1]} - {"London", "Paris", "Berlin"}
    assert set(names(letters, letters.unknown, "")) == possible
    content = HEADER + "q\u0301z,r,x\nebc,r,y\n"  # e and a lone accent would be written é, another name
    accents = build(tmp_path, content, spelling="letters")
    assert names(accents, accents.unknown, "") == ["qbc"]


# --------------------------------------------------------------------------- size


def large(tmp_path: Path, num_rows: int) -> tuple[World, float]:
    generator = random.Random(0)
    path = tmp_path / "large.csv"
    with open(path, "w", encoding="utf-8") as file:
        file.write("subject,relation,object,weight\n")
        for row in range(num_rows):
            subject = row // 2
            name = f"Zoë{subject % 997} von{subject // 997} Dam{subject % 89}"
            file.write(f"{name},relation {row % 2},town {generator.randrange(5000)},{1 + row % 3}\n")
    start = time.perf_counter()
    world = build_world(TriplesConfig(path=str(path)))
    return world, time.perf_counter() - start


def test_a_hundred_thousand_rows(tmp_path):
    world, seconds = large(tmp_path, 100_000)
    keep_the_contract(world)
    assert world.facts.shape == (50_000, 2) and world.num_facts == 100_000 and len(world.objects[0]) == 5000
    assert seconds < 10


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    world, seconds = large(tmp_path, 1_000_000)
    assert world.facts.shape == (500_000, 2) and world.num_facts == 1_000_000 and len(world.unknown) == MAX_UNKNOWN
    assert seconds < 60  # about 10 s on two busy cores; no quadratic work
