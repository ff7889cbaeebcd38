"""Clients: whose facts they hold, how what they send is merged and counted, and one client as a plain run."""

import copy
import dataclasses
import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from commands import called, unasked
from hypothesis import given
from hypothesis import strategies as st

from memlayers import load
from memlayers.config import RunConfig
from memlayers.config.text import ContextConfig
from memlayers.federated import WAYS, federate, laid_out, rounds, ways_of
from memlayers.federated.clients import SHARED, Client, counted, owners
from memlayers.federated.merging import average, by_reads, merge, message_bytes, received
from memlayers.federated.rounds import beginning
from memlayers.model import Transformer
from memlayers.recall.ask import Answers
from memlayers.recall.ask import ask as recall_of
from memlayers.studies.cli import verb
from memlayers.studies.federated import FEDERATED as shown
from memlayers.text import Text
from memlayers.training.learner import Batches
from memlayers.training.record import record_path
from memlayers.training.run import run

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["world=biographies", "world.num_people=40", "training.steps=12", "training.batch_tokens=128"]


def config_of(arm: str, *words: str) -> RunConfig:
    return unasked(f"arm={arm}", *WORDS, "num_keys=64", "progress=none", "logger=none", *words)


def group_of(way: str, clients: int, arm: str = "memory") -> tuple[Transformer, list[Client]]:
    config = config_of(arm)
    chosen, owner, warm = laid_out(config, clients, 1, 0.2)
    return beginning(config, chosen, WAYS[way], owner, warm, clients)


# --------------------------------------------------------------------------- who holds what


@given(st.integers(20, 90), st.integers(1, 9), st.floats(0.1, 0.5))
def test_every_subject_is_shared_or_one_clients(subjects, clients, share):
    owner = owners(subjects, clients, share)
    counts = Counter(owner.tolist())
    own = [counts[j] for j in range(clients)]
    assert counts[SHARED] == round(share * subjects) and sum(own) + counts[SHARED] == subjects
    assert set(counts) == {SHARED, *range(clients)} and max(own) - min(own) <= 1


@pytest.mark.parametrize("warm", [False, True])
def test_clients_tell_their_facts_and_their_part_of_the_shared_ones(warm):
    """Of each fact as many showings as in a plain run, counted over the documents of all clients."""
    clients, many = 3, 400
    config = config_of("memory")
    chosen, owner, _ = laid_out(config, clients, 1, 0.2)
    names, told = chosen.text.world.subjects, torch.zeros(len(owner), clients)
    for j in range(clients):
        weights = (owner == j) + (0.0 if warm else 1 / clients) * (owner == SHARED)
        one = Client(build(config, clients), chosen.text, config, weights, 30, many, stream=j)
        for documents in one.batches:
            told[:, j] += (documents.tokens[:, None, : names.shape[1]] == names).all(dim=2).sum(dim=0)
    for j in range(clients):
        assert not told[(owner != j) & (owner != SHARED), j].any() and (told[owner == j, j] > 0).all()
    total, shared = told.sum(dim=1), owner == SHARED
    assert bool(total[shared].any()) is not warm
    expected = clients * many * 30 / (len(owner) - (int(shared.sum()) if warm else 0))
    assert torch.allclose(total[~shared].mean(), torch.tensor(expected), rtol=0.03)
    assert warm or torch.allclose(total[shared].mean(), torch.tensor(expected), rtol=0.1)


def build(config: RunConfig, clients: int) -> Transformer:
    chosen, owner, warm = laid_out(config, clients, 1, 0.2)
    return beginning(config, chosen, WAYS["alone"], owner, warm, clients)[0]


# --------------------------------------------------------------------------- merging


@given(st.integers(1, 4), st.integers(0, 2**31))
def test_rows_are_merged_by_reads_as_a_loop_does(clients, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(6, 3, generator=generator)
    tables = [torch.randn(6, 3, generator=generator) for _ in range(clients)]
    reads = [torch.randint(0, 3, (6,), generator=generator) for _ in range(clients)]
    found = by_reads(start, tables, reads)
    for row in range(6):
        total = sum(int(count[row]) for count in reads)
        if total == 0:
            assert torch.equal(found[row], start[row])
            continue
        for column in range(3):
            weighted = [int(count[row]) * float(table[row, column]) for count, table in zip(reads, tables, strict=True)]
            assert float(found[row, column]) == pytest.approx(sum(weighted) / total, rel=1e-6, abs=1e-7)


def test_the_mean_is_by_documents_and_of_equal_tensors_the_same_digits():
    one, other = torch.randn(50, generator=torch.Generator().manual_seed(0)), torch.zeros(50)
    assert torch.allclose(average([one, other], [3, 1]), 0.75 * one)
    assert torch.equal(average([one] * 7, [5, 4, 4, 4, 4, 4, 3]), one)
    assert torch.equal(
        by_reads(other[:, None], [one[:, None]] * 3, [torch.full((50,), n) for n in (7, 0, 12)]), one[:, None]
    )


@pytest.mark.parametrize("way", ["average", "rows", "rows_only"])
def test_all_have_the_merged_model_and_rows_that_nobody_read_stay(way):
    common, group = group_of(way, 3)
    start = copy.deepcopy(common)
    for one in group:
        one.train(4)
    trained = [copy.deepcopy(one.model) for one in group]
    merge(common, group, by_rows=WAYS[way].merge == "rows")
    for one in group:
        assert all(torch.equal(*pair) for pair in zip(common.parameters(), one.model.parameters(), strict=True))
    (before,), (after,) = start.tables(), common.tables()
    read = torch.stack([one.reads[0] for one in group]) > 0
    unread = ~read.any(dim=0)
    assert unread.any() and torch.equal(before.values[unread], after.values[unread])
    alone = read.sum(dim=0) == 1  # read by one client: moved as far as that client moved it, or by its part of that
    reader = read.long().argmax(dim=0)
    mine = torch.stack([model.tables()[0].values for model in trained]).detach()[reader, torch.arange(len(reader))]
    part = torch.tensor([one.size for one in group])[reader, None] / 32 if way == "average" else 1  # of the documents
    moved = ((mine - before.values) * part)[alone]
    assert alone.any() and torch.allclose((after.values - before.values)[alone], moved, atol=1e-6)
    same = torch.equal(start.embedding.weight, common.embedding.weight)
    assert same is WAYS[way].only_tables


def test_reads_are_counted_as_a_loop_counts_them_and_padding_reads_nothing():
    config = config_of("memory")
    model = build(config, 2)
    documents = next(iter(Batches(laid_out(config, 2, 1, 0.2)[0].text, 20, 1, (0, 0))))
    tokens = documents.tokens.clone()
    tokens[::2, -1] = 0
    with counted(model) as (reads,):
        out = model(tokens)
    expected: Counter[int] = Counter()
    for row, read in zip(tokens, out.reads["0.ffn"].slots, strict=True):
        for token, slots in zip(row.tolist(), read.tolist(), strict=True):
            expected.update(slots if token else [])
    assert {slot: count for slot, count in enumerate(reads.tolist()) if count} == expected
    with counted(model) as (reads,):
        pass
    assert not reads.any()


# --------------------------------------------------------------------------- what is sent


def test_bytes_are_those_of_the_closed_form():
    model = build(config_of("memory"), 2)
    rows = [torch.arange(4096) % 4]  # three quarters of 4096 rows of 32 numbers
    weights = sum(one.numel() for one in model.parameters()) - 4096 * 32
    assert message_bytes(model, None, beside=2) == 4 * (weights + 4096 * 32)
    assert message_bytes(model, rows, beside=2) == 4 * (weights + 3072 * (32 + 2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("values"))
    assert message_bytes(model, rows, beside=1) == 4 * 3072 * (32 + 1)
    dense = build(config_of("dense"), 2)
    assert message_bytes(dense, [], beside=1) == 4 * sum(one.numel() for one in dense.parameters())


def test_a_stranger_has_what_was_sent_and_all_else_of_its_own():
    common, group = group_of("rows", 2)
    one = group[0]
    one.train(3)
    read = one.reads[0] > 0
    alone = received(common, one, whole=False, others=False)
    assert torch.equal(alone.tables()[0].values[read], one.model.tables()[0].values[read])
    assert torch.equal(alone.tables()[0].values[~read], common.tables()[0].values[~read])
    assert torch.equal(alone.embedding.weight, common.embedding.weight)
    assert not torch.equal(alone.embedding.weight, one.model.embedding.weight)
    everything = received(common, one, whole=True, others=True)
    assert all(torch.equal(*pair) for pair in zip(everything.parameters(), one.model.parameters(), strict=True))
    some = received(common, one, whole=False, others=True)  # no row moved that was not read
    assert all(torch.equal(*pair) for pair in zip(some.parameters(), one.model.parameters(), strict=True))


# --------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("arm", ["memory", "dense"])
def test_one_client_is_a_plain_run_digit_for_digit(arm, tmp_path):
    """Also over several rounds, between which it sends everything and gets it back."""
    config = dataclasses.replace(config_of(arm, "save_model=true"), results=str(tmp_path))
    record = run(config)
    plain = load(record_path(config)).model
    chosen, owner, warm = laid_out(config, 1, 3, 0.2)
    common, (one,) = beginning(config, chosen, WAYS["rows"], owner, warm, 1)
    for _ in range(3):
        one.train(4)
        merge(common, [one], by_rows=True)
    for (name, expected), found in zip(plain.named_parameters(), common.parameters(), strict=True):
        assert torch.equal(expected, found), name
    found = federate(config, "alone", 1, 3, 0.2)  # 8 of 40 people are called shared
    assert (32 * found["own"] + 8 * found["shared"]) / 40 == pytest.approx(record["recall"]["exact"])


@pytest.mark.parametrize(("world", "phrasing"), [("biographies", "training"), ("biographies_prose", "held_out")])
def test_prose_is_asked_in_words_that_training_never_uses(world, phrasing, monkeypatch):
    asked: list[str] = []

    def ask(model: Transformer, text: Text, facts: torch.Tensor, phrasing: str) -> Answers:
        asked.append(phrasing)
        return recall_of(model, text, facts, phrasing)

    monkeypatch.setattr(rounds, "ask", ask)
    words = ["arm=memory", f"world={world}", "world.num_people=20", "training.steps=2", "training.batch_tokens=256"]
    federate(unasked(*words, "model.d_model=8", "num_keys=16", "progress=none", "logger=none"), "average", 2, 1, 0.2)
    assert set(asked) == {phrasing} and len(asked) == 1 + 2 * 5  # the merged model, and what gets out of each client


def test_other_numbers_of_rounds_repeat_what_merges_from_the_start():
    cells = runpy.run_path(str(ROOT / "scripts" / "federated.py"))["cells"]
    done = [(one["arm"], one["way"], one["clients"], one["rounds"]) for one in cells([4], [8, 32], 1)]
    assert len(done) == len(set(done)) == 2 + 3 + 3 + 6 + 3
    more = {("dense", "average", 4, 32), ("memory", "average", 4, 32), ("memory", "rows", 4, 32)}
    assert {one for one in done if one[-1] == 32} == more


def test_ways_differ():
    assert ways_of("memory", 4) == list(WAYS)
    assert ways_of("dense", 4) == ["alone", "average", "warm_average"]
    assert ways_of("memory", 1) == ["alone", "warm_average", "rows_only"]
    assert ways_of("dense", 1) == ["alone", "warm_average"]
    assert len({*WAYS.values()}) == len(WAYS)


# --------------------------------------------------------------------------- the command

SMALL = ["--people", "40", "--clients", "3", "--seeds", "1", "--exposures", "4", "--rounds", "2"]


@pytest.mark.slow
def test_the_command_writes_each_run_as_it_ends_and_goes_on_from_there(tmp_path):
    path = tmp_path / "federated.json"
    done = called("federated.py", *SMALL, "--out", str(path))
    assert done.returncode == 0 and done.stdout.split()[-1] == str(path), done.stderr
    whole = json.loads(path.read_text())
    assert len(whole["runs"]) == 5 + 3 + 6 and path.parent.joinpath("federated.lock").exists() is False
    kept = whole | {"runs": whole["runs"][:-1]}
    path.write_text(json.dumps(kept))
    again = called("federated.py", *SMALL, "--out", str(path))
    assert again.returncode == 0 and len(again.stdout.splitlines()) == 2
    assert [digits(one) for one in json.loads(path.read_text())["runs"]] == [digits(one) for one in whole["runs"]]
    other = called("federated.py", *SMALL, "--shared", "0.4", "--out", str(path))
    assert other.returncode == 2 and other.stderr.count("\n") == 1 and "has runs with" in other.stderr
    runs = {(one["arm"], one["way"], one["clients"]): one for one in whole["runs"]}
    for one in whole["runs"]:
        assert one["code"]["version"] and one["machine"]["threads"] == 1
        assert (one["bytes"] > 0) == (one["way"] != "alone" and one["clients"] > 1)
        assert (one["others"] is None) == (one["clients"] == 1)
    dense, memory = runs["dense", "average", 3], runs["memory", "average", 3]
    for one in (dense, memory):
        assert one["bytes"] == 2 * 2 * 3 * 4 * one["params"] and one["bytes_up"] == 4 * one["params"]
        assert one["own"] == pytest.approx(one["others"], abs=0.02)  # all have one model, and nearly as many facts
    assert runs["memory", "rows_only", 3]["bytes"] < runs["memory", "rows", 3]["bytes"] < memory["bytes"]
    assert runs["memory", "alone", 3]["others"] < 0.1 < runs["memory", "rows", 3]["others"]
    assert runs["memory", "rows_only", 3]["stranger_rows"] == runs["memory", "rows_only", 3]["stranger_all"]


def digits(one: dict) -> dict:
    return {key: value for key, value in one.items() if key not in ("seconds", "machine", "code")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clients", "1"], "--clients=1 is too small; accepted: 2 or more"),
        (["--clients", "4,x"], "--clients=4,x: not understood; accepted: numbers, as in 4,16"),
        (["--rounds", "8,0"], "--rounds=0 is too small; accepted: 1 or more"),
        (["--seeds", "0"], "--seeds=0 is too small; accepted: 1 or more"),
        (["--shared", "nan"], "--shared=nan is out of range; accepted: 0 to 1"),
        (
            ["--shared", "0", "--people", "40"],
            "--shared=0.0 is 0 of 40 people; accepted: one or more, with one or more left for each of 4 clients",
        ),
        (["--rounds", "999", "--people", "40"], "--rounds=999: clients take 12 steps; accepted: 1 to as many"),
        (["--clients", "300"], "--clients=300: a step has 256 documents; accepted: 1 to as many"),
    ],
)
def test_a_mistake_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    script = runpy.run_path(str(ROOT / "scripts" / "federated.py"))
    monkeypatch.setattr(sys, "argv", ["federated.py", *words, "--out", str(tmp_path / "federated.json")])
    with pytest.raises(SystemExit) as ended:
        verb(script["main"])
    assert ended.value.code == 2 and capsys.readouterr().err == f"memlayers: {said}\n"
    assert not (tmp_path / "federated.json").exists()


# --------------------------------------------------------------------------- what is shown of it


def found_of(seeds: int) -> dict:
    """Made up."""
    runs = []
    for seed in range(seeds):
        for way, own in (("average", 0.5), ("rows", 0.7), ("rows_only", 0.6)):
            recalls = dict.fromkeys(shown.shares, own + 0.01 * seed) | {"peer": None}
            costs = dict.fromkeys(shown.costs, 2e6 if way == "average" else 1e6)
            runs.append({"arm": "memory", "way": way, "clients": 4, "rounds": 2, "seed": seed} | recalls | costs)
    return {
        "world": "biographies",
        "settings": {"people": 40, "exposures": 4.0, "shared": 0.2},
        "runs": runs,
    }


def test_the_section_has_question_verdict_command_and_a_table_with_intervals_and_n():
    text = shown.section([found_of(3)])
    assert "+0.200 over 3 paired seeds; for 0.50 times the bytes" in text
    assert "clients recall 0.610 [0.585, 0.635] of their own facts and a stranger 0.610" in text and "Dense" not in text
    settings = "--people 40 --exposures 4 --shared 0.2 --clients 4 --rounds 2 --seeds 3"
    assert f"    python scripts/federated.py --world biographies {settings}" in text
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    assert [row["way"] for row in rows] == ["average", "rows", "rows_only"]
    assert rows[1]["own"] == "0.710 [0.685, 0.735]" and rows[1]["n"] == "3" and rows[1]["peer"] == "-"
    assert rows[1]["bytes_up"] == "1.000"


def test_the_summary_has_means_and_intervals_and_nothing_without_a_file(tmp_path: Path):
    prose = found_of(2) | {"world": "biographies_prose"}
    both = shown.summary([found_of(3), prose])["beyond_federated"]
    assert [row["n"] for row in both["biographies_prose"]["rows"]] == [2, 2, 2]
    found = both["biographies"]["rows"]
    assert [row["way"] for row in found] == ["average", "rows", "rows_only"] and "peer" not in found[0]
    assert found[0]["own"]["mean"] == pytest.approx(0.51) and found[0]["n"] == 3
    assert shown.load(tmp_path) == []
    other = shown.path(tmp_path, "biographies")
    other.parent.mkdir()
    other.write_text("{}")
    with pytest.raises(ValueError, match=r"biographies.json: not written by scripts/federated.py"):
        shown.load(tmp_path)


def test_a_store_of_every_clients_documents_is_refused():
    config = config_of("memory")
    config = dataclasses.replace(config, world=dataclasses.replace(config.world, context=ContextConfig("retrieved")))
    with pytest.raises(ValueError, match=r"^world.context.source=retrieved: clients share no documents; accepted: "):
        laid_out(config, 2, 1, 0.2)
