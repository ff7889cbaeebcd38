"""The script that teaches a swapped Llama new facts, and what it says that each way of teaching forgets."""

import copy
import json
import runpy
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
from memlayers.studies.customised import CUSTOMISED, TARGET
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
    assert all(one["before"] > 0.98 and one["new"] >= 0.9 for one in runs.values())
    assert runs["context"]["forgotten"] == 0 and runs["context"]["tokens"] == 15 > runs["full"]["tokens"] == 4
    size = {arm: one["bytes"] for arm, one in runs.items()}
    assert size["context"] < size["rows_500"] == 500 * (64 * 4 + 4) < size["rows_2000"] < size["table"] < size["full"]
    forgotten = {arm: one["forgotten"] for arm, one in runs.items()}
    assert max(forgotten["table"], forgotten["rows_2000"]) < forgotten["full"] / 2 < forgotten["lora"] / 2
    assert forgotten["rows_500"] < forgotten["lora"] / 5, "about as many bytes; of full, three seeds cannot tell it"


SMALL = ["--people", "120", "--seeds", "1"]


@pytest.mark.parametrize("world", list(SIZES))
def test_the_command_teaches_in_every_way_and_goes_on_from_what_is_there(world, monkeypatch, tmp_path, capsys):
    """Hardly trained, so that its numbers say nothing but how they are counted."""
    script, out = runpy.run_path(str(ROOT / "scripts" / "finetune.py")), tmp_path / "out.json"
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
    whole = json.loads(out.read_text())
    runs, text = {one["arm"]: one for one in whole["runs"]}, pretrained(world, 120, 0).text
    assert list(runs) == list(script["RATES"]) and {one["seed"] for one in whole["tuning"]} == {11}
    stated = text.stated(torch.arange(70, 120), torch.Generator().manual_seed(0)).tokens
    assert runs["context"]["bytes"] == 2 * int((stated != PAD).sum())
    assert runs["rows_500"]["rows"] <= 500 and runs["table"]["rows"] == 64**2 and runs["full"]["rows"] is None
    assert runs["full"]["tokens"] < runs["context"]["tokens"]
    if world == "biographies":
        assert runs["full"]["tokens"] == 4 and runs["context"]["tokens"] == 3 + 4 * 2 + 4
    assert all(one["forgotten"] == 1 - one["old"] / 0.5 for one in runs.values())
    names = {tuple(row[:3]) for row in text.subjects[:70].tolist()}
    for documents in taught_now:  # no old person's name stands anywhere in them
        assert not names & {tuple(window) for window in documents.tokens.unfold(1, 3, 1).flatten(0, 1).tolist()}
    assert set(people_told) <= {(70, 119)} | {one for one in people_told if one[1] < 70}, "the background is old people"
    assert len(people_told) > 4
    assert (runs["full"]["new_held_out"] is None) == (world == "biographies")
    kept = whole | {"runs": whole["runs"][:-1]}
    out.write_text(json.dumps(kept))
    assert script["main"]() == 0 and capsys.readouterr().out.count("seed ") == 1
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--people", "130", "--world", world, "--out", str(out)])
    with pytest.raises(
        ValueError, match=r"has runs with people=120; accepted: those of this command, or another --out$"
    ):
        script["main"]()


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
        return {"arm": way, "rate": rate, "new": new, "forgotten": forgotten}

    tuning = [trial(way, 1.0, 1.0, 0.5) for way in RATES if way != "full"]
    tuning += [trial("full", 1.0, 0.9, 0.0), trial("full", 2.0, 0.96, 0.2), trial("full", 3.0, 0.99, 0.3)]
    assert best_rates(tuning) == dict.fromkeys(RATES, 1.0) | {"full": 2.0}
    assert TARGET == teach_module.TARGET == 0.95
    assert best_rates(tuning[:6])["full"] == 1.0  # where none reaches it, the one that learns most


def test_what_is_shown_says_what_is_forgotten_and_what_is_not_learnt(tmp_path):
    """Made up; teaching may also help old facts."""
    runs = []
    for seed in range(2):
        for way, new, forgotten in (("context", 1.0, 0.0), ("full", 0.95, -0.02), ("lora", 0.5, 0.3)):
            found = dict.fromkeys((*CUSTOMISED.shares, *CUSTOMISED.costs), 0.5)
            runs.append(found | {"arm": way, "seed": seed, "new": new, "forgotten": forgotten + seed / 100})
    contents = [{"world": world, "settings": {"people": 250}, "runs": runs} for world in SIZES]
    text = CUSTOMISED.section(contents)
    assert "all weights taught: -0.015 [-0.079, 0.049], 5e-07 MB, 0.500;" in text
    assert "what is kept beside the model, and the share of new ones that is recalled in words that" in text
    assert "low-rank changes: 0.305 [0.241, 0.369], 5e-07 MB, though only 0.500 of the new facts are learnt" in text
    assert "Told in the context: nothing, by construction" in text
    assert "python scripts/finetune.py --world biographies_prose --people 250 --seeds 2" in text
    assert [path.suffix for path in CUSTOMISED.draw(contents, tmp_path / "figure")] == [".png", ".svg"]


def test_a_mistake_is_one_line(tmp_path):
    done = called("finetune.py", "--out", str(tmp_path))
    assert done.returncode == 2 and done.stderr == f"memlayers: --out={tmp_path} is a folder; accepted: a file\n"
    done = called("finetune.py", "--seeds", "12")
    assert done.returncode == 2 and "--seeds=12: seed 11 is for tuning; accepted: up to 11" in done.stderr
    done = called("finetune.py", "--people", "5")
    assert done.returncode == 2 and done.stderr == "memlayers: --people=5 is too small; accepted: 100 or more\n"
