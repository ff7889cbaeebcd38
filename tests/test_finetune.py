"""The script that teaches a swapped Llama new facts, and what it says that each way of teaching forgets."""

import copy
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from commands import called
from torch import nn

from memlayers.config import BiographiesConfig
from memlayers.documents import Documents
from memlayers.facts.world import PAD
from memlayers.foreign import taught as taught_module
from memlayers.foreign import teach as teach_module
from memlayers.foreign.taught import SIZES, facts_of, in_context, loss_of, pretrained
from memlayers.foreign.teach import delta_bytes, teach
from memlayers.studies.frame import framed, read_all
from memlayers.studies.layout import read_layout
from memlayers.studies.table import table
from memlayers.text import text_of

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("transformers")
pytest.importorskip("peft")
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "finetune.py"))
RATES, best_rates = SCRIPT["RATES"], SCRIPT["best_rates"]


@pytest.mark.slow
def test_sparse_memory_finetuning_learns_as_much_and_forgets_less():
    """A quarter of the terse world of results/beyond_customisation/, at rates that reach the target in fewer steps."""
    taught = pretrained("biographies", 300, 0)
    rates = {"context": 0.0, "full": 1e-4, "lora": 3e-4, "table": 30.0, "rows_500": 300.0, "rows_2000": 100.0}
    runs = {way: teach(way, taught, rate) for way, rate in rates.items()}
    recall, found = ({way: one[block] for way, one in runs.items()} for block in ("recall", "taught"))
    assert all(one["before"] > 0.98 and one["exact"] >= 0.9 for one in recall.values())
    tokens = {way: one["context"]["tokens"] for way, one in recall.items()}
    assert found["context"]["forgotten"] == 0 and tokens["context"] == 15 > tokens["full"] == 4
    size = {way: one["delta_bytes"] for way, one in found.items()}
    assert size["context"] < size["rows_500"] == 500 * (64 * 4 + 4) < size["rows_2000"] < size["table"] < size["full"]
    forgotten = {way: one["forgotten"] for way, one in found.items()}
    assert max(forgotten["table"], forgotten["rows_2000"]) < forgotten["full"] / 2 < forgotten["lora"] / 2
    assert forgotten["rows_500"] < forgotten["lora"] / 5, "about as many bytes; of full, three seeds cannot tell it"


SMALL = ["--people", "120", "--seeds", "1"]


@pytest.mark.parametrize("world", list(SIZES))
def test_the_command_teaches_in_every_way_and_goes_on_from_what_is_there(world, monkeypatch, tmp_path, capsys):
    """Hardly trained, so that its numbers say nothing but how they are counted."""
    script, out = runpy.run_path(str(ROOT / "scripts" / "finetune.py")), tmp_path / "out"
    monkeypatch.setattr(taught_module, "STEPS", {"terse": 6, "prose": 6})
    monkeypatch.setattr(teach_module, "MOST", 1)
    monkeypatch.setattr(teach_module, "BATCHES", 3)
    monkeypatch.setitem(script["main"].__globals__, "RATES", {way: [1e-3] for way in script["RATES"]})
    taught_now, people_told, recalled = [], [], teach_module.recalled
    lessons, told = teach_module.lessons, teach_module.told

    def counted(text, people, generator):
        people_told.append((int(people.min()), int(people.max())))
        return told(text, people, generator)

    monkeypatch.setattr(teach_module, "recalled", lambda *given: recalled(*given) | {"before": 0.5})
    monkeypatch.setattr(teach_module, "lessons", lambda *given: taught_now.append(lessons(*given)) or taught_now[-1])
    monkeypatch.setattr(teach_module, "told", counted)
    monkeypatch.setattr(sys, "argv", ["finetune.py", *SMALL, "--world", world, "--out", str(out)])
    assert script["main"]() == 0 and capsys.readouterr().out.count("seed ") == 12
    whole = list(read_all(out / "beyond_customisation"))
    runs, text = {one["arm"]: one for one in whole}, pretrained(world, 120, 0).text
    assert runs.keys() == script["RATES"].keys() and len(list(read_all(out / "customisation_rates"))) == 6
    assert {one["seed"] for one in read_all(out / "customisation_rates")} == {11}
    size, rows = ({way: one["taught"][name] for way, one in runs.items()} for name in ("delta_bytes", "rows"))
    tokens = {way: one["recall"]["context"]["tokens"] for way, one in runs.items()}
    stated = text.stated(torch.arange(70, 120), torch.Generator().manual_seed(0)).tokens
    assert size["context"] == 2 * int((stated != PAD).sum())
    assert rows["rows_500"] <= 500 and rows["table"] == 64**2 and rows["full"] is None
    assert tokens["full"] < tokens["context"]
    if world == "biographies":
        assert tokens["full"] == 4 and tokens["context"] == 3 + 4 * 2 + 4
    assert all(one["taught"]["forgotten"] == 1 - one["recall"]["old"] / 0.5 for one in runs.values())
    names = {tuple(row[:3]) for row in text.subjects[:70].tolist()}
    for documents in taught_now:  # no old person's name stands anywhere in them
        assert not names & {tuple(window) for window in documents.tokens.unfold(1, 3, 1).flatten(0, 1).tolist()}
    assert set(people_told) <= {(70, 119)} | {one for one in people_told if one[1] < 70}, "the background is old people"
    assert len(people_told) > 4
    assert (runs["full"]["recall"]["held_out"] is None) == (world == "biographies")
    layout = read_layout(out / "beyond_customisation")
    shown = table(framed(whole), layout).set_index("arm")
    assert layout["commands"] == [shlex.join(["python", "scripts/finetune.py", *sys.argv[1:]])]
    assert shown["delta_bytes"].to_dict() == size and shown.loc["full", "reference"] and shown["teach.rate"].all()
    next((out / "beyond_customisation").rglob("lora-*.json")).unlink()
    assert script["main"]() == 0 and capsys.readouterr().out.count("seed ") == 1
    monkeypatch.setattr(sys, "argv", ["finetune.py", *SMALL, "--people", "130", "--world", world, "--out", str(out)])
    assert script["main"]() == 0 and capsys.readouterr().out.count("seed ") == 12  # another world


def test_a_delta_is_the_rows_that_differ_and_what_the_first_model_lacks():
    before = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    after = copy.deepcopy(before)
    assert delta_bytes(before, after) == 0
    with torch.no_grad():
        after[0].weight[1, 2] += 1  # one row of three floats, and its number
        after[1].weight += 1  # all rows: no numbers
        after[0].bias[0] += 1  # a vector is one row
    assert delta_bytes(before, after) == (12 + 4) + 2 * 16 + 16
    after.append(nn.Linear(2, 5, bias=False))
    assert delta_bytes(before, after) == (12 + 4) + 2 * 16 + 16 + 40


@pytest.mark.parametrize("world", list(SIZES))
@pytest.mark.parametrize("anew", [False, True])
def test_a_context_holds_what_is_asked_and_only_the_last_answer_is_learnt(world, anew):
    """Drawn anew, the context and the answer have the same object, which is not the world's."""
    text = text_of(BiographiesConfig(name=world, num_people=80, **SIZES[world]))
    facts = facts_of(text, torch.arange(30, 80))
    generator = torch.Generator().manual_seed(0)
    known = text.world.facts[torch.randperm(80, generator=generator)] if anew else None
    documents = in_context(text, facts, "training", generator, known)
    objects = text.objects[text.first_object[facts[:, 1]] + (text.world.facts if known is None else known)[*facts.T]]
    for tokens, answers, context, subject, own in zip(*documents, facts[:, 0], objects, strict=True):
        answer = own[own != PAD]
        assert torch.equal(tokens[answers], answer) and set(answer.tolist()) <= set(tokens[context].tolist())
        assert not (context & answers).any() and int(context.sum()) >= 3 + 2 * len(text.world.relations)
        assert set(text.subjects[subject].tolist()) - {PAD} <= set(tokens[context].tolist())
    same = (objects == text.objects[text.first_object[facts[:, 1]] + text.world.facts[*facts.T]]).all(dim=1)
    assert same.all() if not anew else same.double().mean() < 0.1


def test_prose_is_learnt_whole_and_terse_text_at_its_answers():
    """The model always says 5, which is right for one of three tokens, and the answer is another."""

    class Words(nn.Module):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 9)
            logits[..., 5] = 100.0
            return type("Out", (), {"logits": logits})

    tokens = torch.tensor([[3, 5, 5, 7, 0]])
    answers = torch.tensor([[False, False, False, True, False]])
    documents = Documents(tokens, answers, torch.zeros_like(answers))
    terse, prose = (type("Style", (), {"style": style}) for style in ("terse", "prose"))
    assert loss_of(Words(), documents, terse) == pytest.approx(100.0)
    assert loss_of(Words(), documents, prose) == pytest.approx(100.0 / 3)


def test_the_rate_of_a_way_reaches_the_target_and_then_forgets_least():
    def trial(way: str, rate: float, new: float, forgotten: float) -> dict:
        found = {"recall": {"exact": new}, "taught": {"forgotten": forgotten}}
        return {"arm": way, "config": {"teach": {"rate": rate}}} | found

    tuning = [trial(way, 1.0, 1.0, 0.5) for way in RATES if way != "full"]
    tuning += [trial("full", 1.0, 0.9, 0.0), trial("full", 2.0, 0.96, 0.2), trial("full", 3.0, 0.99, 0.3)]
    assert best_rates(tuning) == dict.fromkeys(RATES, 1.0) | {"full": 2.0}
    assert teach_module.TARGET == 0.95
    assert best_rates(tuning[:6])["full"] == 1.0  # where none reaches it, the one that learns most


def test_a_mistake_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = called("finetune.py", "--out", str(tmp_path / "file"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/file" in done.stderr and "accepted: a writable folder" in done.stderr
    done = called("finetune.py", "--seeds", "12")
    assert done.returncode == 2 and "--seeds=12: seed 11 is for tuning; accepted: up to 11" in done.stderr
    done = called("finetune.py", "--people", "5")
    assert done.returncode == 2 and done.stderr == "memlayers: --people=5 is too small; accepted: 100 or more\n"
