"""A model that was kept is the one that was trained, and answers with the probabilities that it has."""

import json
import subprocess
import sys

import pytest
import torch
from commands import GATED, one, small
from safetensors.torch import load_file, save_file

import memlayers
from memlayers.facts.world import PAD, known_facts
from memlayers.recall.ask import ask
from memlayers.trained import Trained
from memlayers.training.record import finished, model_path, record_path
from memlayers.training.run import run

WORDS = ["world=atlas_airports", "world.num_subjects=40", "training.exposures=80", "training.batch_tokens=128"]
WORDS += ["training.probes=1", "progress=none", "logger=none", "save_model=true", "num_keys=16"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A record, and the model of that run: 40 airports that it knows by heart."""
    config = one(*WORDS, "arm=memory", f"results={tmp_path_factory.mktemp('kept')}")
    return run(config), model_path(config)


def test_the_model_recalls_what_its_record_says(kept):
    record, path = kept
    model = memlayers.load(path)
    facts = known_facts(model.text.world)
    exact = ask(model.model, model.text, facts, "training").exact.double().mean()
    assert float(exact) == record["recall"]["exact"] > 0.9
    assert memlayers.load(path.with_suffix(".json")).config == model.config, "the record's name is as good"


def test_a_run_that_ended_is_run_again_for_the_sake_of_its_model(kept, tmp_path):
    config = small(tmp_path)
    first = run(config)
    assert not model_path(config).exists()
    config.save_model = True
    assert finished(config) is None
    again = run(config)
    assert again["recall"] == first["recall"] and finished(config) == again and model_path(config).is_file()


@pytest.mark.parametrize(
    "words", ["arm=dense", f"{GATED} model.depth=4 model.blocks=[1,3]", "arm=engram", "arm=oracle"]
)
def test_every_parameter_is_kept_once_and_comes_back(words, tmp_path):
    config = small(tmp_path, *words.split(), "save_model=true")
    record = run(config)
    model = memlayers.load(record_path(config)).model
    assert sum(p.numel() for p in model.parameters()) == record["cost"]["params"]
    stored = sum(tensor.numel() for tensor in load_file(model_path(config)).values())
    buffers = sum(buffer.numel() for name, buffer in model.named_buffers() if name in model.state_dict())
    assert stored == record["cost"]["params"] + buffers, "a shared pool stands once"


def naive_probability(model: Trained, question: list[int], answer: list[int]) -> float:
    """One token at a time, as one would write it down."""
    probability = 1.0
    for place, token in enumerate(answer):
        logits = model.model(torch.tensor([question + answer[:place]])).logits[-1]
        probability *= float(logits.softmax(dim=-1)[token])
    return probability


def test_probabilities_are_those_of_the_whole_object(kept):
    model = memlayers.load(kept[1])
    world, text = model.text.world, model.text
    name = list(model.subjects)[3]
    for relation in ("country", "icao"):
        row = world.relations.index(relation)
        question = [*text.subjects[3].tolist(), text.vocabulary.index(f"[{relation}]")]
        question = [token for token in question if token != PAD]
        reply = model.ask(name, relation, top=100)
        told = dict(zip(reply.objects, reply.probabilities, strict=True))
        assert len(told) == len(world.objects[row]) and list(told.values()) == sorted(told.values(), reverse=True)
        with torch.no_grad():
            for index, tokens in enumerate(world.objects[row].tolist()):
                expected = naive_probability(model, question, [token for token in tokens if token != PAD])
                assert told[model.objects[row][index]] == pytest.approx(expected, rel=1e-4)
        truth = world.facts[3, row]
        assert reply.truth == model.objects[row][truth] == reply.objects[0]


def test_unknown_subjects_can_be_asked_and_have_no_truth(kept):
    model = memlayers.load(kept[1])
    stranger = list(model.subjects)[len(model.text.world.subjects)]
    assert model.ask(stranger, "country").truth is None


def one_line(action) -> str:
    with pytest.raises(ValueError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_asked_is_one_line(kept):
    model = memlayers.load(kept[1])
    name = next(iter(model.subjects))
    assert one_line(lambda: model.ask(name[::-1] + "?", "country")).startswith(f"'{name[::-1]}?': no such subject; acc")
    said = one_line(lambda: model.ask(name, "contry"))
    assert said.startswith("'contry': no such relation; accepted: 7 relations, such as country")
    assert "phrasing=held_out: relation country has no such" in one_line(
        lambda: model.ask(name, "country", 1, "held_out")
    )
    for phrasing in ("heldout", "told", "statements", "train"):
        assert one_line(lambda phrasing=phrasing: model.ask(name, "country", 1, phrasing)) == (
            f"phrasing={phrasing!r} is not known; accepted: held_out, questions, held_out_questions, training"
        )


def test_what_cannot_be_loaded_is_one_line(kept, tmp_path):
    path = tmp_path / "memory-s0-0.safetensors"
    assert one_line(lambda: memlayers.load(path)).startswith(f"{path}: not there; accepted: the file of a run with ")
    path.write_bytes(b"no model at all")
    assert one_line(lambda: memlayers.load(path)).startswith(f"{path}: not a model (")
    tensors = load_file(kept[1])
    save_file(tensors, path)
    assert "saved by memlayers something else" in one_line(lambda: memlayers.load(path))
    from safetensors import safe_open

    with safe_open(kept[1], "pt") as file:
        said = file.metadata()
    save_file(tensors, path, said | {"text": "0"})
    assert "the facts of world atlas_airports have changed since" in one_line(lambda: memlayers.load(path))
    wrong = json.loads(said["settings"])
    wrong["model"]["depth"] = "x"
    cases = [said | {"settings": text} for text in ("{", "{}", json.dumps(wrong))]
    for metadata in (*cases, {name: text for name, text in said.items() if name != "text"}):
        save_file(tensors, path, metadata)
        assert one_line(lambda: memlayers.load(path)).startswith(f"{path}: damaged settings (")
    save_file({name: tensor[:1] for name, tensor in tensors.items()}, path, said)
    assert one_line(lambda: memlayers.load(path)).startswith(f"{path}: damaged parameters (")
    other = json.loads(said["settings"])
    other["model"]["ffn"]["kind"] = "Bilinear"
    save_file(tensors, path, said | {"settings": json.dumps(other)})
    assert one_line(lambda: memlayers.load(path)).startswith("Bilinear is no layer or rule of ours; accepted: with")
    other["model"]["ffn"] |= {"kind": "Memory", "of_before": False}
    save_file(tensors, path, said | {"settings": json.dumps(other)})
    assert one_line(lambda: memlayers.load(path)).startswith("Memory has no setting 'of_before'; accepted: as saved by")


def asked(*words: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/ask.py", *words]
    return subprocess.run(command, capture_output=True, text=True, input=lines)


def test_ask_answers_on_the_command_line_and_line_by_line(kept):
    model = memlayers.load(kept[1])
    name = next(iter(model.subjects))
    truth = model.ask(name, "country").truth
    done = asked(str(kept[1]), name, "country")
    assert done.returncode == 0 and done.stdout.startswith(f"{name}, country\n") and f"  {truth} " in done.stdout
    done = asked(str(kept[1]), lines=f"{name}, icao\n\n{name}, nothing\n{name}\n")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no such relation" in done.stderr
    assert done.stdout.count(f"{name}, ") == 1 + 7
