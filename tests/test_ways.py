"""The figure of every way to recall more: which runs are points of it, and at what cost."""

import json
from pathlib import Path

import pytest
from records import record, with_checksum

from memlayers.studies.frame import RECORDS
from memlayers.studies.ways import draw_ways, points_of_ways

FORWARD = 7.0  # FLOPs of a token
TAUGHT = {"distil": {"teacher": "frontier/dense_4x"}, "num_keys": 8}


def run(arm: str, seed: int, recall: float = 0.5, world: str = "biographies", **changes) -> dict:
    config = changes.pop("config", {"num_keys": 8})
    total, tokens, votes = changes.pop("with_teacher", {}), changes.pop("tokens", 4.0), changes.pop("votes", {})
    made = record(arm, seed, recall, world=world, config=config, storage={"tables": 96.0, "weights": 4.0}, **changes)
    if made["status"] == "ok":
        made["cost"] |= {"forward": FORWARD} | total
        made["recall"] |= {"context": {"tokens": tokens, "store_bytes": 50.0 if "retrieved" in str(config) else None}}
        made["recall"] |= votes
    return made


def study(results: Path, name: str, *runs: dict) -> None:
    (results / name).mkdir(parents=True)
    (results / name / RECORDS).write_text("\n".join(json.dumps(with_checksum(one)) for one in runs))


def test_a_point_is_a_configuration_with_its_costs_a_teachers_included(tmp_path):
    study(
        tmp_path,
        "frontier",
        *(run("dense", seed, 0.2 + 0.1 * seed) for seed in (0, 1)),
        run("dense_4x", 0, 0.6, flops=4e12),
        run("dense_4x", 1, 0.7, flops=4e12),
        run("dense_8x", 0, 0.9, flops=8e12),
        run("memory", 0, 0.9),
        run("memory", 1, 0.9),
        run("memory", 2, error="no"),
        run("memory", 0, 0.99, config={"num_keys": 16}, digest="larger"),
        run("memory", 0, 0.5, world="elsewhere"),
    )
    study(
        tmp_path,
        "beyond_distillation",
        run("dense", 0, 0.1),
        run("dense", 0, 0.3, config=TAUGHT, digest="taught", with_teacher={"training_flops_with_teacher": 5e12}),
    )
    points = points_of_ways(tmp_path).set_index("way")
    assert sorted(points.index) == sorted(
        [
            "dense, facts shown more often",
            "dense, made wider or deeper",
            "dense, taught by a teacher",
            "memory, facts shown more often",
        ]
    )
    assert points.loc["dense, made wider or deeper", "recall"] == pytest.approx(0.65), "8x has one seed, others two"
    assert points.loc["dense, facts shown more often", ["n", "recall", "bytes", "asking"]].tolist() == [
        2,
        0.25,
        100,
        4 * 7,
    ]
    assert points.loc["dense, taught by a teacher", "training_flops_with_teacher"] == 5e12
    assert points.loc["memory, facts shown more often", ["n", "recall"]].tolist() == [2, 0.9]
    first = [path.read_bytes() for path in draw_ways(tmp_path, tmp_path / "a")]
    assert first == [path.read_bytes() for path in draw_ways(tmp_path, tmp_path / "b")] and len(first) == 2


def test_prose_is_read_by_what_is_recalled_in_held_out_words(tmp_path):
    study(tmp_path, "language", run("memory", 0, 0.9, world="biographies_prose", held_out=0.4))
    assert points_of_ways(tmp_path)["recall"].tolist() == [pytest.approx(0.4)]


def test_documents_of_a_fact_are_a_way_of_their_own(tmp_path):
    def told(document: str) -> dict:
        config = {"num_keys": 8, "world": {"document": document}}
        return run("memory", 0, held_out=0.3, world="biographies_prose", config=config, digest=document)

    study(tmp_path, "beyond_curation_prose", told("subject"), told("fact"))
    ways = ["memory, told in fewer wordings", "memory, told one fact a document"]
    assert points_of_ways(tmp_path)["way"].tolist() == ways


def test_a_question_costs_all_its_tokens_in_all_its_wordings(tmp_path):
    def settings(source: str, parts: int = 100) -> dict:
        return {"num_keys": 8, "world": {"name_parts": [parts] * 3, "context": {"source": source}}}

    def pair(digest: str, **changes) -> list[dict]:
        return [run("dense", seed, world="biographies_prose", digest=digest, **changes) for seed in (0, 1)]

    votes = {"votes": {"1": 0.41, "2": 0.5, "4": 0.6, "8": None}}
    few = {"num_keys": 8, "world": {"document": "subject"}}
    study(tmp_path, "language", *pair("plain", tokens=None, held_out=0.4))
    study(tmp_path, "beyond_test_time", *pair("voted", tokens=12.0, held_out=0.4, votes=votes))
    study(tmp_path, "beyond_curation_prose", *pair("few", tokens=12.0, held_out=0.3, votes=votes, config=few))
    study(
        tmp_path,
        "beyond_grounding",
        *pair("closed", tokens=12.0, config=settings("none")),
        *pair("searched", tokens=100.0, held_out=0.8, config=settings("retrieved")),
        *pair("open", tokens=90.0, config=settings("given")),
        *pair("alike", tokens=100.0, config=settings("retrieved", 12))[:1],
    )
    found = points_of_ways(tmp_path)
    costs = {name: own.set_index("asking")["recall"].to_dict() for name, own in found.groupby("way")}
    assert costs["dense, facts shown more often"] == {12 * FORWARD: pytest.approx(0.4)}, "its record knows no length"
    asked = costs["dense, asked in more wordings, which vote"]
    assert asked == {2 * 12 * FORWARD: pytest.approx(0.5), 4 * 12 * FORWARD: pytest.approx(0.6)}
    assert costs["dense, told in fewer wordings"] == {12 * FORWARD: pytest.approx(0.3)}, "asked in one"
    searched = costs["dense, with a retrieved document"]
    assert searched == {100 * FORWARD: pytest.approx(0.8)}, "not that of other names"
    stored = found.set_index("way")["bytes"]
    assert stored["dense, with a retrieved document"] == 150
    assert stored["dense, facts shown more often"] == 100


def test_nothing_is_drawn_without_records(tmp_path):
    assert draw_ways(tmp_path, tmp_path / "a") == [] and not (tmp_path / "a.png").exists()
