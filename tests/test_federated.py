"""Clients: whose facts they hold, how what they send is merged and counted, and one client as a plain run."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch
from commands import composed, refusal, unasked
from commands import one as job
from hypothesis import given
from hypothesis import strategies as st

import memlayers
from memlayers import load
from memlayers.config import RunConfig
from memlayers.config.digest import digest
from memlayers.config.federated import WAYS, ways_of
from memlayers.kernels import choose
from memlayers.model import Transformer
from memlayers.recall.ask import Answers
from memlayers.recall.ask import ask as recall_of
from memlayers.studies.figure import draw
from memlayers.studies.layout import read_layout
from memlayers.studies.panels import panels_of
from memlayers.text import Text
from memlayers.training.divergence import Diverged
from memlayers.training.federated import federate, rounds
from memlayers.training.federated.clients import SHARED, Client, counted, owners
from memlayers.training.federated.merging import average, by_reads, kept_averages, merge, message_bytes, received
from memlayers.training.federated.rounds import beginning, laid_out
from memlayers.training.learner import Batches
from memlayers.training.plan import plan
from memlayers.training.record import record_path
from memlayers.training.run import run

WORDS = ["world=biographies", "world.num_people=40", "training.steps=12", "training.batch_tokens=128"]
WORDS += ["num_keys=64", "progress=none", "logger=none"]


def config_of(arm: str, *words: str) -> RunConfig:
    return unasked(f"arm={arm}", *WORDS, *words)


def together(way: str, clients: int, rounds: int = 1, arm: str = "memory") -> RunConfig:
    """Clients that learn in this way."""
    settings = {"way": way, "clients": clients, "rounds": rounds}
    return config_of(arm, *(f"federated.{key}={value}" for key, value in settings.items()))


def group_of(way: str, clients: int, rounds: int = 1, arm: str = "memory") -> tuple[Transformer, list[Client]]:
    config = together(way, clients, rounds, arm)
    chosen = plan(config)
    return beginning(config, chosen, *laid_out(config, chosen), choose("auto"))


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
    """Of each fact as many exposures as in a plain run, counted over the documents of all clients."""
    clients, many = 3, 400
    config = together("alone", clients)
    chosen = plan(config)
    owner, _ = laid_out(config, chosen)
    names, told = chosen.text.world.subjects, torch.zeros(len(owner), clients)
    for j in range(clients):
        weights = (owner == j) + (0.0 if warm else 1 / clients) * (owner == SHARED)
        one = Client(build("alone", clients), chosen.text, config, weights, 30, many, j, choose("auto"))
        for documents in one.batches:
            told[:, j] += (documents.tokens[:, None, : names.shape[1]] == names).all(dim=2).sum(dim=0)
    for j in range(clients):
        assert not told[(owner != j) & (owner != SHARED), j].any() and (told[owner == j, j] > 0).all()
    total, shared = told.sum(dim=1), owner == SHARED
    assert bool(total[shared].any()) is not warm
    expected = clients * many * 30 / (len(owner) - (int(shared.sum()) if warm else 0))
    assert torch.allclose(total[~shared].mean(), torch.tensor(expected), rtol=0.03)
    assert warm or torch.allclose(total[shared].mean(), torch.tensor(expected), rtol=0.1)


def build(way: str, clients: int, arm: str = "memory") -> Transformer:
    return group_of(way, clients, arm=arm)[0]


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
    model = build("alone", 2)
    documents = next(iter(Batches(plan(config_of("memory")).text, 20, 1, (0, 0))))
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
    model = build("alone", 2)
    rows = [torch.arange(4096) % 4]  # three quarters of 4096 rows of 32 numbers
    weights = sum(one.numel() for one in model.parameters()) - 4096 * 32
    assert message_bytes(model, None, beside=2) == 4 * (weights + 4096 * 32)
    assert message_bytes(model, rows, beside=2) == 4 * (weights + 3072 * (32 + 2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("values"))
    assert message_bytes(model, rows, beside=1) == 4 * 3072 * (32 + 1)
    dense = build("alone", 2, "dense")
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


def test_averages_that_a_layer_keeps_are_merged_and_sent_as_weights_are():
    """Those of a query's batch norm, by which the model answers; else a merged model answers by those of its start."""
    common, group = group_of("average", 3, arm="pkm")
    for one in group:
        one.train(3)
    kept = [[buffer.clone() for buffer in kept_averages(one.model)] for one in group]
    assert kept[0] and not any(torch.equal(*pair) for pair in zip(kept_averages(common), kept[0], strict=True))
    tokens = plan(config_of("pkm")).text.sample(5, torch.Generator().manual_seed(0)).tokens
    sent = received(common, group[0], whole=True, others=True).eval()
    assert torch.equal(sent(tokens).logits, group[0].model.eval()(tokens).logits)
    merge(common, group, by_rows=False)
    sizes = [one.size for one in group]
    for place, found in enumerate(kept_averages(common)):
        weighted = sum(size * theirs[place] for size, theirs in zip(sizes, kept, strict=True))
        assert torch.allclose(found, weighted / sum(sizes), atol=1e-6)
        assert all(torch.equal(found, kept_averages(one.model)[place]) for one in group)


# --------------------------------------------------------------------------- rounds


@pytest.mark.parametrize("arm", ["memory", "dense"])
def test_one_client_is_a_plain_run_digit_for_digit(arm, tmp_path):
    """Also over several rounds, between which it sends everything and gets it back."""
    config = dataclasses.replace(config_of(arm, "save_model=true"), results=str(tmp_path))
    record = run(config)
    plain = load(record_path(config)).model
    common, (one,) = group_of("alone", 1, 3, arm)
    for _ in range(3):
        one.train(4)
        merge(common, [one], by_rows=True)
    for (name, expected), found in zip(plain.named_parameters(), common.parameters(), strict=True):
        assert torch.equal(expected, found), name
    alone = dataclasses.replace(together("alone", 1, 3, arm), results=str(tmp_path))
    found = run(alone)
    assert (
        found["machine"]["kernels"] == record["machine"]["kernels"] and found["cost"].items() <= record["cost"].items()
    )
    shares = (32 * found["recall"]["own"] + 8 * found["recall"]["shared"]) / 40  # 8 of 40 people are called shared
    assert shares == pytest.approx(record["recall"]["exact"]) and not found["sent"]["bytes"]
    assert run(alone) == found and record_path(alone).is_file()


@pytest.mark.parametrize(("world", "phrasing"), [("biographies", "training"), ("biographies_prose", "held_out")])
def test_prose_is_asked_in_words_that_training_never_uses(world, phrasing, monkeypatch):
    asked: list[str] = []

    def ask(model: Transformer, text: Text, facts: torch.Tensor, phrasing: str) -> Answers:
        asked.append(phrasing)
        return recall_of(model, text, facts, phrasing)

    monkeypatch.setattr(rounds, "ask", ask)
    words = ["arm=memory", f"world={world}", "world.num_people=20", "training.steps=2", "training.batch_tokens=256"]
    words += ["model.d_model=8", "num_keys=16", "progress=none", "logger=none"]
    config = unasked(*words, "federated.way=average", "federated.clients=2", "federated.rounds=1")
    federate(config, plan(config), print)
    assert set(asked) == {phrasing, "training"}
    in_training = ["training"] * (phrasing == "held_out")
    assert Counter(asked) == Counter([phrasing] * (1 + 2 * 5) + in_training)  # the merged model, what gets out of each


def test_ways_differ():
    assert ways_of(True, 4) == list(WAYS)
    assert ways_of(False, 4) == ["alone", "average", "warm_average"]
    assert ways_of(True, 1) == ["alone", "warm_average", "rows_only"]
    assert ways_of(False, 1) == ["alone", "warm_average"]
    assert len({*WAYS.values()}) == len(WAYS)


# --------------------------------------------------------------------------- the runs


def test_what_is_sent_and_recalled_is_in_the_record(tmp_path):
    found = {}
    for arm, way in (("dense", "average"), ("memory", "average"), ("memory", "rows"), ("memory", "rows_only")):
        words = ["training.steps=null", "training.exposures=4"]
        config = unasked(
            f"arm={arm}", *WORDS, *words, f"federated.way={way}", "federated.clients=3", "federated.rounds=2"
        )
        found[arm, way] = run(dataclasses.replace(config, results=str(tmp_path)))
    for one in (found["dense", "average"], found["memory", "average"]):
        params = one["cost"]["params"]
        assert one["sent"] == {"up": 4 * params, "down": 4 * params, "bytes": 2 * 2 * 3 * 4 * params, "rows": None}
        recall = one["recall"]
        assert recall["own"] == pytest.approx(recall["others"], abs=0.02)  # all have one model
    sizes = [found["memory", way]["sent"]["bytes"] for way in ("rows_only", "rows", "average")]
    assert sizes == sorted(set(sizes)) and 0 < found["memory", "rows"]["sent"]["rows"] < 1
    frozen = found["memory", "rows_only"]["recall"]
    assert frozen["stranger_rows"] == frozen["stranger_all"]


def test_a_client_that_diverges_is_said_as_of_a_run(tmp_path):
    config = unasked("arm=memory", *WORDS, "federated.way=average", "optim.lr=1e30", "federated.rounds=2")
    with pytest.raises(Diverged, match=r"a client's model is not finite: lower optim\.lr or optim\.values\.lr"):
        run(dataclasses.replace(config, results=str(tmp_path)))


def test_a_report_shows_runs_of_clients_beside_a_plain_one(tmp_path):
    """Without a layout of their own, as study=NAME has; only plain runs have recall on the way."""
    for config in (together("average", 2), config_of("memory")):
        run(dataclasses.replace(config, results=str(tmp_path), study="mine"))
        frame = memlayers.records(tmp_path)
        layout = read_layout(tmp_path)
        assert draw(frame, layout, tmp_path / "figure") and panels_of(frame, layout)


def test_settings_decide_the_digest_only_with_clients():
    plain, averaged = job("arm=memory"), job("arm=memory", "federated.way=average")
    others = job("arm=memory", "federated.way=average", "federated.rounds=4")
    assert len({digest(plain), digest(averaged), digest(others)}) == 3
    for word in ("federated.clients=8", "federated.rounds=4", "federated.shared=0.1"):
        assert refusal("arm=memory", word).startswith(f"{word}: has no effect here")
    assert refusal("federated.way=average", "training.probes=3").startswith("training.probes=3: has no effect here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["federated.way=mean"], "federated.way='mean' is not known; accepted: " + ", ".join(WAYS)),
        (["federated.clients=0"], "federated.clients=0 is too small; accepted: 1 or more"),
        (["federated.rounds=0"], "federated.rounds=0 is too small; accepted: 1 or more"),
        (["federated.shared=1.5"], "federated.shared=1.5 is out of range; accepted: 0 to 1"),
        (
            ["federated.way=rows", "arm=dense"],
            "federated.way=rows: no layer has a table; accepted: alone, average, warm_average",
        ),
        (
            ["federated.way=average", "federated.clients=1"],
            "federated.way=average: one client has nothing to merge; accepted: alone, warm_average, rows_only",
        ),
        (["save_model=true"], "save_model=True: clients of federated.way=alone do without; accepted: false"),
        (
            ["quantize.weights=int8"],
            "quantize: clients of federated.way=alone do without; accepted: float32 and no noise",
        ),
        (["trainer=cpu_bf16"], "trainer: clients of federated.way=alone do without; accepted: trainer=cpu"),
        (["logger=tensorboard"], "logger: clients of federated.way=alone do without; accepted: csv or none"),
        (
            ["world=biographies", "world.two_hop=0.5"],
            "world.two_hop: clients of federated.way=alone do without; accepted: 0",
        ),
        (
            ["world=biographies_prose", "world.context.source=retrieved"],
            "world.context.source=retrieved: clients of federated.way=alone do without; accepted: none or given",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(words, said):
    usual = [] if any(word.startswith("federated.way") for word in words) else ["federated.way=alone"]
    assert refusal(*usual, *words) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["federated.shared=0"],
            "federated.shared=0.0 is 0 of 40 subjects; accepted: one or more, with one or more left for each of 4 "
            "clients",
        ),
        (
            ["world.zipf=1"],
            "federated.way=alone: clients take equal steps, and facts of this world are not told equally often; "
            "accepted: world.zipf=0, or a file without weights",
        ),
        (["federated.rounds=999"], "federated.rounds=999: clients take 12 steps; accepted: 1 to as many"),
        (
            ["federated.clients=20", "training.batch_tokens=64"],
            "federated.clients=20: a step has 16 documents; accepted: 1 to as many",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_world_is_too_small_for_is_refused_before_training(words, said):
    config = config_of("memory", "federated.way=alone", *words)
    with pytest.raises(ValueError) as caught:
        federate(config, plan(config), print)
    assert str(caught.value) == said


def test_the_study_has_a_row_for_each_way():
    jobs = composed("experiment=beyond_federated", "federated.clients=4,16")
    assert len(jobs) == 36 and len({digest(job) for job in jobs}) == 12
