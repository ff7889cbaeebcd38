"""An exported model is the one that was trained: same logits, same tokens, and the same facts right for a harness."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import GATED, called, unasked

import memlayers
from memlayers.facts.world import PAD, known_facts
from memlayers.recall.ask import ask
from memlayers.training.record import record_path
from memlayers.training.run import run

transformers = pytest.importorskip("transformers")
from memlayers.exported import export  # noqa: E402

SMALL = ["training.probes=1", "progress=none", "logger=none", "save_model=true"]
TERSE = [*SMALL, "world=atlas_airports", "world.num_subjects=40", "training.exposures=8", "training.batch_tokens=128"]
TERSE += ["num_keys=16"]
PROSE = [*SMALL, "world=biographies_prose", "world.num_people=40", "training.steps=200", "training.batch_tokens=256"]
PROSE += ["world.prose.pieces=400", "world.cardinalities=[2,3,2,3,2,3]"]
RUNS = {
    "memory": (*TERSE, "arm=memory"),
    "shared": (*TERSE, *GATED.split(), "model.depth=4", "model.blocks=[1,3]"),
    "half": (*TERSE, "arm=memory", "model.ffn.value_dtype=bfloat16"),
    "buffers": (*TERSE, "arm=moe"),
    "tokens": (*TERSE, "arm=engram", "model.loops=2"),
    "prose": (*PROSE, "arm=memory"),
}


def kept(folder: Path, *words: str) -> Path:
    """The record of a run, beside its model."""
    config = unasked(*words, f"results={folder}")
    run(config)
    return record_path(config)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained model and the folder of its export, by the name of a run; each is made once."""
    made = {}

    def get(name: str) -> tuple[memlayers.trained.Trained, Path]:
        if name not in made:
            results = tmp_path_factory.mktemp(name)
            trained = memlayers.load(kept(results, *RUNS[name]))
            export(trained, results / "folder")
            made[name] = trained, results / "folder"
        return made[name]

    return get


def read(folder: Path):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def documents(trained, count: int = 16) -> torch.Tensor:
    return trained.text.sample(count, torch.Generator().manual_seed(0)).tokens


def same(model, trained) -> None:
    tokens = documents(trained)
    with torch.no_grad():
        torch.testing.assert_close(
            model(tokens).logits.flatten(0, 1), trained.model(tokens).logits, atol=1e-6, rtol=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_logits_are_those_of_our_model_and_stay_so(name, exported, tmp_path):
    trained, folder = exported(name)
    model, _ = read(folder)
    same(model, trained)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in trained.model.parameters())
    assert sorted(str(p.dtype) for p in model.parameters()) == sorted(str(p.dtype) for p in trained.model.parameters())
    model.save_pretrained(tmp_path)
    again, _ = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    same(again, trained)


def test_it_can_be_loaded_in_half_precision(exported):
    trained, folder = exported("memory")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    others = {one.dtype for name, one in model.named_parameters() if not name.endswith("values")}
    assert others == {model.dtype} == {torch.bfloat16}
    assert model.transformer.tables()[0].values.dtype == torch.float32, "tables have a setting of their own"
    tokens = documents(trained)
    with torch.no_grad():
        half, full = model(tokens).logits.flatten(0, 1).float(), trained.model(tokens).logits
    assert 0 < float((half - full).norm() / full.norm()) < 0.2


def test_a_loss_is_that_of_the_next_token_and_reaches_every_parameter(exported):
    trained, folder = exported("memory")
    model, _ = read(folder)
    tokens = documents(trained)
    out = model(tokens, labels=tokens.masked_fill(tokens == PAD, -100))
    losses = [
        -float(scores.detach().log_softmax(dim=-1)[token])
        for row, own in zip(tokens.tolist(), out.logits, strict=True)
        for token, scores in zip(row[1:], own, strict=False)
        if token != PAD
    ]
    assert out.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert memlayers.param_groups(model)[-1]["params"], "tables are known for what they are"


@pytest.mark.parametrize("name", ["memory", pytest.param("prose", marks=pytest.mark.slow)])
def test_text_and_tokens_are_one_another(name, exported):
    trained, folder = exported(name)
    _, tokenizer = read(folder)
    assert len(tokenizer) == len(trained.text.vocabulary)
    rows = [[token for token in row if token != PAD] for row in documents(trained, 500).tolist()]
    for row, text in zip(rows, tokenizer.batch_decode(rows), strict=True):
        assert tokenizer(text)["input_ids"] == row
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    if name == "memory":
        words = [word.replace(" ", "▁") for word in trained.text.vocabulary]
        assert tokenizer(" ".join(words))["input_ids"] == list(range(len(words)))
        with pytest.raises(Exception, match="UNK"):
            tokenizer("Z? [country]")


@pytest.mark.parametrize("name", ["memory", pytest.param("tokens", marks=pytest.mark.slow)])
def test_generate_is_greedy_decoding_token_by_token_wherever_a_text_begins(name, exported):
    trained, folder = exported(name)
    model, tokenizer = read(folder)
    lines = [json.loads(line) for line in (folder / "memlayers_facts.jsonl").read_text().splitlines()[:4]]
    asked = [one["question"] for one in lines]
    asked[1] += lines[1]["answer"]  # of another length: the others are padded
    batch = tokenizer(asked, return_tensors="pt", padding=True)
    assert (batch["attention_mask"] == 0).any()
    made = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert model.generate(**batch, max_new_tokens=3, do_sample=False, use_cache=True).equal(made)  # as lm-eval asks
    for text, row in zip(asked, made.tolist(), strict=True):
        tokens = tokenizer(text)["input_ids"]
        for _ in range(3):
            with torch.no_grad():
                tokens.append(int(trained.model(torch.tensor([tokens])).logits[-1].argmax()))
        assert [token for token in row if token != PAD] == tokens


def test_what_a_model_of_ours_does_not_do_is_refused(exported):
    model = read(exported("memory")[1])[0]
    for change in ({"output_hidden_states": True}, {"position_ids": torch.arange(3)[None]}):
        with pytest.raises(ValueError, match=r"is not supported; accepted: input_ids, attention_mask, labels"):
            model(torch.tensor([[2, 3, 4]]), **change)
    for change in ({"return_dict": False}, {"logits_to_keep": 1}):
        with pytest.raises(ValueError, match=r"are not supported; accepted: without them"):
            model(torch.tensor([[2, 3, 4]]), **change)
    with pytest.raises(ValueError, match=r"tokens are those of the world; accepted: no others"):
        model.resize_token_embeddings(10)
    assert model(torch.tensor([[2, 3, 4]])).logits.isfinite().all()


def test_a_loaded_model_trains_with_any_optimizer_once_gradients_of_tables_are_dense(exported):
    model = read(exported("memory")[1])[0].train()
    memlayers.param_groups(model, tables="dense")
    optimizer, tokens = torch.optim.AdamW(model.parameters()), torch.tensor([[2, 3, 4, 5]])
    losses = []
    for _ in range(3):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and not model.accepts_loss_kwargs  # else Trainer leaves the mean to the model


def harness(folder: Path, task: str) -> list[bool]:
    """What lm-eval does for loglikelihood: is each token of the answer the first choice after those before it?"""
    model, tokenizer = read(folder)
    right = []
    for line in (folder / f"{task}.jsonl").read_text().splitlines():
        asked = json.loads(line)
        context = tokenizer(asked["question"])["input_ids"]
        whole = tokenizer(asked["question"] + asked["answer"])["input_ids"]
        assert whole[: len(context)] == context
        with torch.no_grad():
            best = model(torch.tensor([whole[:-1]])).logits[0].argmax(dim=-1).tolist()
        right.append(best[len(context) - 1 :] == whole[len(context) :])
    return right


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "phrasing"),
    [
        ("memory", "memlayers_facts", "training"),
        ("prose", "memlayers_facts", "training"),
        ("prose", "memlayers_facts_held_out", "held_out"),
    ],
)
def test_the_task_finds_those_facts_right_that_recall_does(name, task, phrasing, exported):
    trained, folder = exported(name)
    expected = ask(trained.model, trained.text, known_facts(trained.text.world), phrasing).exact.tolist()
    assert 0 < sum(expected) < len(expected), "some right and some wrong, or nothing was compared"
    assert harness(folder, task) == expected
    assert (folder / "memlayers_facts_held_out.yaml").exists() == (name == "prose")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason='pip install -e ".[lm-eval]"')
@pytest.mark.parametrize(("name", "task"), [("memory", "memlayers_facts"), ("prose", "memlayers_facts_held_out")])
def test_lm_eval_gives_the_accuracy_that_recall_has(name, task, exported, tmp_path):
    trained, folder = exported(name)
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={folder}", "--device"]
    command += ["cpu", "--tasks", str(folder / f"{task}.yaml"), "--output_path", str(tmp_path), "--batch_size", "64"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | offline, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("results_*.json")
    found = json.loads(path.read_text())["results"][task]
    phrasing = "held_out" if task.endswith("held_out") else "training"
    expected = ask(trained.model, trained.text, known_facts(trained.text.world), phrasing).exact.double().mean()
    assert found["acc,none"] == pytest.approx(float(expected), abs=1e-9) and found["acc_stderr,none"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", ["memlayers.exported, transformers", "transformers, memlayers.exported", ""])
def test_transformers_knows_the_model_once_it_is_imported_and_refuses_it_before(first, exported):
    _, folder = exported("memory")
    code = f"import {first or 'transformers'}; from transformers import AutoModelForCausalLM as M;"
    code += f"print(type(M.from_pretrained({str(folder)!r})).__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if first:
        assert done.stdout == "memlayers.exported.model\n", done.stderr
    else:
        assert done.returncode == 1 and "model type `memlayers`" in done.stderr


def test_tensors_that_are_missing_are_not_drawn_anew(exported, tmp_path):
    _, folder = exported("memory")
    model, _ = read(folder)
    kept = {name: one for name, one in model.state_dict().items() if not name.endswith("lookup.keys")}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(ValueError, match=r"1 tensors missing or unknown, such as transformer.*keys; accepted: none"):
        read(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"memlayers": {"format": 0, "version": "0.0.9"}}))
    with pytest.raises(ValueError, match=r"written by memlayers 0.0.9; accepted: format 1 of its export"):
        read(tmp_path)


def test_a_model_that_is_made_from_its_config_is_drawn_by_our_rules(exported):
    _, folder = exported("memory")
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config)
    (table,) = model.transformer.tables()
    assert table.values.std().item() == pytest.approx(table.d_value**-0.5, rel=0.1)
    assert model.transformer.embedding.weight.std().item() == pytest.approx(0.2, rel=0.1)


@pytest.mark.slow
def test_the_script_writes_what_the_function_does_and_refuses_in_one_line(exported, tmp_path):
    _, folder = exported("memory")
    (path,) = folder.parent.glob("single/*/*.json")
    done = called("export.py", str(path), str(tmp_path / "new"))
    assert done.returncode == 0 and done.stderr == "" and "memlayers_facts.yaml" in done.stdout
    assert {one.name for one in (tmp_path / "new").iterdir()} == {one.name for one in folder.iterdir()}
    done = called("export.py", str(tmp_path / "none.json"), str(tmp_path / "other"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout
    assert "none.safetensors: not there; accepted: the file of a run with save_model=true" in done.stderr


def test_a_folder_that_cannot_be_is_refused_and_left_as_it_was(exported, tmp_path):
    trained, folder = exported("memory")
    (tmp_path / "file").write_text("as it was")
    for path, said in (
        (folder, "is there already; accepted: a new or empty folder"),
        (tmp_path / "file", "is there already; accepted: a new or empty folder"),
        (tmp_path / "file" / "below", r"cannot be written \(Not a directory\); accepted: a writable folder"),
    ):
        with pytest.raises(ValueError, match=rf"^{path}: {said}$"):
            export(trained, path)
    assert (tmp_path / "file").read_text() == "as it was"


@pytest.mark.slow
def test_an_oracle_has_nothing_to_carry_away(tmp_path):
    trained = memlayers.load(kept(tmp_path, *TERSE, "arm=oracle"))
    with pytest.raises(ValueError, match=r"^an oracle is given the facts of its world, and has no model"):
        export(trained, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
