"""A study of frontiers: its figure, its section and its numbers in results/summary.json, from made-up records."""

import json

import pytest
from records import record, write

from memlayers.studies.frame import framed
from memlayers.studies.layout import FILE, read_layout
from memlayers.studies.results import commit, redraw, studies_in
from memlayers.studies.sections import by_relation, headline, render
from memlayers.studies.summary import EXPOSURES, main_runs, summary

STUDY = """
question: How much?
frontier: true
rows: [arm, match.spend, num_keys, training.exposures]
columns: training.exposures
commands: [python scripts/train.py a=b]
"""
RECALL = {"dense": 0.1, "dense_4x": 0.3, "memory": 0.2, "random": 0.35}


def run(arm: str, seed: int, exposures: int, spend: str | None = None, world: str = "w") -> dict:
    """Recall grows by the exposures; depth is the worse way to spend."""
    growth = 0.3 if arm == "memory" else 0.1
    recall = RECALL[arm] + growth * (exposures > EXPOSURES) + 0.01 * seed - 0.05 * (spend == "depth")
    config = {"training": {"exposures": exposures}, "match": {"spend": spend}, "num_keys": 8}
    made = record(
        arm,
        seed,
        recall,
        axes={"arm": arm, "seed": seed, "training.exposures": exposures, "match.spend": spend, "num_keys": 8},
        config=config,
        world=world,
        flops=1e6 * exposures * (4 if arm == "dense_4x" else 1),
        digest=f"{arm}-{exposures}-{spend}",
    )
    tables = None if arm.startswith("dense") else {"without": 0.05, "usage": {"0.ffn": {"used": 0.5, "kl": 1.0}}}
    made["recall"] |= {"unknown": {"auroc": 0.75}, "by_relation": {"r": recall, "q": recall / 2}, "tables": tables}
    return made


RUNS = [
    run(arm, seed, exposures, spend)
    for arm, spend in [(arm, "width" if arm.startswith("dense") else None) for arm in RECALL] + [("dense_4x", "depth")]
    for exposures in (EXPOSURES, 2 * EXPOSURES)
    for seed in (0, 1, 2)
]


@pytest.fixture
def results(tmp_path):
    local = write(tmp_path / "local", *RUNS)
    (local / FILE).write_text(STUDY)
    commit(local, tmp_path / "results")
    return tmp_path / "results"


def test_the_summary_has_each_arm_at_the_exposures_of_all_worlds_and_its_multiples(results):
    found = json.loads(json.dumps(summary(studies_in(results))))["studies"]["s"]["w"]
    assert found["arms"].keys() == RECALL.keys() and list(found["multiplier"]) == ["memory", "random"]
    memory = found["arms"]["memory"]
    assert memory["recall"] == pytest.approx(0.21) and memory["n"] == 3 and memory["unknown_auroc"] == 0.75
    assert memory["training_flops"] == 1e6 * EXPOSURES and memory["parameters"] == 50_000
    assert found["arms"]["dense_4x"]["recall"] == pytest.approx(0.31), "by the better way to spend"
    times = {entry["recall"]: entry for entry in found["multiplier"]["memory"]}
    assert min(times) == 0.25 and times[0.3]["times"] == pytest.approx(2**1.9 / 2**0.3)
    assert times[0.5]["at_least"] and times[0.5]["times"] == pytest.approx(8 / 2 ** (0.29 / 0.3))


def test_the_best_way_to_spend_four_times_as_much_may_be_to_show_facts_more_often(results):
    frame = framed([*RUNS, *(run("dense", seed, 4 * EXPOSURES) for seed in (0, 1, 2))])
    found = main_runs(frame, "dense")
    assert set(found["dense"]["config.training.exposures"]) == {EXPOSURES}
    dear = found["dense_4x"]
    assert float(dear["training_flops"].iloc[0]) == 4e6 * EXPOSURES
    more_often = RECALL["dense"] + 0.1 > RECALL["dense_4x"]
    assert set(dear["arm"]) == {"dense" if more_often else "dense_4x"}
    frame.loc[frame["config.training.exposures"] == 4 * EXPOSURES, "recall"] = 0.99
    assert set(main_runs(frame, "dense")["dense_4x"]["arm"]) == {"dense"}


def test_the_section_has_verdict_tables_and_recall_by_relation_and_the_figure_is_the_same_twice(results, tmp_path):
    text = render(results)
    for part in ("## s\n", "for a recall of 0.5 dense needs", "Recall by relation on w", "| memory", "figure.png"):
        assert part in text
    first, second = (redraw(results / "s", tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second] and len(first) == 4
    shown = (tmp_path / "a" / "table.csv").read_text().splitlines()
    assert all(name in shown[0] for name in ("unknown_auroc", "without_tables", "slots_used", "slots_kl"))


def test_a_study_of_one_table_size_has_a_section_too(results):
    (results / "s" / FILE).write_text((results / "s" / FILE).read_text().replace("- num_keys\n", ""))
    assert "| memory" in render(results)


def test_the_headline_has_a_row_a_world(results):
    head, _, line = headline([results / "s"], ("memory", "dense", "dense_4x")).splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        "world", "recall: memory", "recall: dense", "recall: dense_4x", "dense FLOPs / memory FLOPs", "AUROC: memory",
        "AUROC: dense", "n"
    ]  # fmt: skip
    assert line.startswith("| w") and "at least 4.1" in line and line.rstrip(" |").endswith("3")


def test_what_was_shown_more_often_says_so_in_the_headline_and_is_in_no_table_by_relation(tmp_path):
    longer = [run("dense", seed, 4 * EXPOSURES) for seed in (0, 1, 2)]
    for one in longer:
        one["recall"] |= {"exact": 0.99, "by_relation": {"r": 0.99, "q": 0.99}}
    local = write(tmp_path / "local", *RUNS, *longer)
    (local / FILE).write_text(STUDY)
    commit(local, tmp_path / "results")
    line = headline([tmp_path / "results" / "s"], ("memory", "dense", "dense_4x")).splitlines()[-1]
    assert "0.990, 64 exposures |" in line and line.count("exposures") == 1
    (found,) = by_relation(framed([*RUNS, *longer]), read_layout(tmp_path / "results" / "s")).values()
    assert found.set_index("arm")["r"].to_dict() == {"dense": "0.110", "dense_4x": "0.310", "memory": "0.210"} | {
        "random": "0.360"
    }


def test_the_summary_of_another_study_is_its_table(tmp_path):
    """Of rows that are arms, means; of other axes, every row with its intervals."""
    for study, values in (("plain", [None]), ("swept", [4, 8])):
        runs = [
            record(
                arm,
                seed,
                0.2 + 0.1 * seed,
                axes={"arm": arm, "seed": seed} | ({"k": k} if k else {}),
                digest=f"{arm}{k}",
            )
            for arm in ("dense", "memory")
            for k in values
            for seed in (0, 1)
        ]
        for run_ in runs:
            run_["study"] = study
        commit(write(tmp_path / study, *runs), tmp_path / "results")
    found = json.loads(json.dumps(summary(studies_in(tmp_path / "results"))))["studies"]
    assert found["plain"]["w"]["arms"]["memory"]["recall"] == pytest.approx(0.25)
    assert found["plain"]["w"]["arms"]["memory"]["n"] == 2
    rows = found["swept"]["w"]["rows"]
    assert [(row["arm"], row["k"]) for row in rows] == [
        ("dense", "4"),
        ("dense", "8"),
        ("memory", "4"),
        ("memory", "8"),
    ]
    half = 12.706 * 0.05  # Student's t for one degree of freedom, times the standard error of 0.2 and 0.3
    assert rows[0]["recall"] == pytest.approx({"mean": 0.25, "low": 0.0, "high": 0.25 + half}, abs=1e-3)  # a share
    assert "held_out" not in rows[0] and "difference" not in rows[0] and "difference" in rows[2]
