"""The script that teaches a swapped Llama new facts, and what it says that each way of teaching forgets."""

import copy
import json
import runpy
from pathlib import Path

import pytest
import torch
from commands import called
from torch import nn

from memlayers.config import BiographiesConfig
from memlayers.documents import Documents
from memlayers.facts.world import PAD
from memlayers.foreign.taught import SIZES, facts_of, in_context, loss_of
from memlayers.foreign.teach import delta_bytes
from memlayers.text import text_of

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.mark.slow
def test_sparse_memory_finetuning_learns_as_much_and_forgets_less(tmp_path):
    """A quarter of the world of results/beyond_customisation/, at its rates."""
    path = tmp_path / "finetune.json"
    done = called("finetune.py", "--people", "300", "--seeds", "1", "--out", str(path))
    assert done.returncode == 0, done.stderr
    runs = {one["arm"]: one for one in json.loads(path.read_text())["runs"]}
    assert all(one["before"] > 0.98 and one["new"] >= 0.9 for one in runs.values())
    assert runs["context"]["forgotten"] == 0 and runs["context"]["tokens"] > 3 * runs["full"]["tokens"]
    size = {arm: one["bytes"] for arm, one in runs.items()}
    assert size["context"] < size["rows_500"] == 500 * (64 * 4 + 4) < size["rows_2000"] < size["table"] < size["full"]
    forgotten = {arm: one["forgotten"] for arm, one in runs.items()}
    assert max(forgotten["table"], forgotten["rows_2000"]) < forgotten["full"] / 2 < forgotten["lora"] / 2
    assert forgotten["rows_500"] < forgotten["lora"] / 5, "about as many bytes; of full, three seeds cannot tell it"
    assert done.stdout.split()[:5] == ["arm", "rate", "steps", "new", "forgotten"]


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
    """A model that always says 5, of which two of three tokens to be said are."""

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


def test_a_file_without_a_rate_for_every_way_is_one_line(monkeypatch, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "finetune.py"))
    old = tmp_path / "beyond_customisation" / "biographies.json"
    old.parent.mkdir()
    old.write_text(json.dumps({"tuning": [{"arm": "full"}]}))
    monkeypatch.setitem(script["tried"].__globals__, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=r"biographies.json has no rate for context, lora, .*; accepted: --tune$"):
        script["tried"]("biographies")


def test_a_mistake_is_one_line(tmp_path):
    done = called("finetune.py", "--seeds", "12")
    assert done.returncode == 2 and "--seeds=12 is out of range; accepted: 1 to 11" in done.stderr
    done = called("finetune.py", "--people", "5")
    assert done.returncode == 2 and done.stderr == "memlayers: --people=5 is too small; accepted: 100 or more\n"
