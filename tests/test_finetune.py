"""The script that teaches a swapped Llama new facts, and what it says that each way of teaching forgets."""

import copy
import json
import runpy
from pathlib import Path

import pytest
import torch
from commands import called
from torch import nn

from memlayers.documents import Documents
from memlayers.foreign.teach import RELATIONS, delta_bytes, told

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
    assert runs["context"]["forgotten"] == 0 and runs["context"]["tokens"] > 5 * runs["full"]["tokens"]
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


def test_a_context_holds_all_facts_of_the_person_and_its_answer_is_the_last():
    """Drawn anew, the context and the answer have the same objects, which are those of one other person."""
    names = torch.arange(12).repeat_interleave(RELATIONS) + 100
    relations = torch.arange(RELATIONS).repeat(12) + 10
    objects = torch.arange(12 * RELATIONS) + 1000
    tokens = torch.stack([names, relations, objects], dim=1)
    answers = torch.tensor([False, False, True]).expand(len(tokens), 3)
    documents = Documents(tokens, answers, torch.zeros_like(answers))
    rows = torch.randperm(len(tokens))
    for anew in (False, True):
        made = told(documents, rows, torch.Generator().manual_seed(0), anew)
        assert made.tokens.shape == (48, 3 * (RELATIONS + 1)) and (made.answers.sum(dim=1) == 1).all()
        facts = made.tokens.view(48, RELATIONS + 1, 3)
        assert torch.equal(facts[..., 0], names[rows][:, None].expand(-1, RELATIONS + 1))
        assert torch.equal(facts[:, :-1, 1].sort(dim=1).values, torch.arange(10, 14).expand(48, -1))
        assert torch.equal(facts[:, -1, 1], relations[rows])
        owner = (facts[..., 2] - 1000) // RELATIONS
        assert (owner == owner[:, :1]).all() and torch.equal((facts[..., 2] - 1000) % RELATIONS, facts[..., 1] - 10)
        assert torch.equal(owner[:, 0], rows // RELATIONS) is not anew
        assert made.answers[:, -1].all() and made.context[:, :-3].all() and not made.context[:, -3:].any()


def test_a_file_without_a_rate_for_every_way_is_one_line(monkeypatch, tmp_path):
    script = runpy.run_path(str(ROOT / "scripts" / "finetune.py"))
    old = tmp_path / "biographies.json"
    old.write_text(json.dumps({"tuning": [{"arm": "full"}]}))
    monkeypatch.setitem(script["tried"].__globals__, "FILE", old)
    with pytest.raises(ValueError, match=r"biographies.json has no rate for context, lora, .*; accepted: --tune$"):
        script["tried"]()


def test_a_mistake_is_one_line(tmp_path):
    done = called("finetune.py", "--seeds", "12")
    assert done.returncode == 2 and "--seeds=12 is out of range; accepted: 1 to 11" in done.stderr
    done = called("finetune.py", "--people", "5")
    assert done.returncode == 2 and done.stderr == "memlayers: --people=5 is too small; accepted: 100 or more\n"
