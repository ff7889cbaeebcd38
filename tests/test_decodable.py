"""Linear probes: against least squares, and in models whose streams are known."""

import pytest
import torch
from stubs import seeded, small_world
from torch import nn

from memlayers.config import ModelConfig
from memlayers.facts.world import known_facts
from memlayers.layers import Dense
from memlayers.model import build_model
from memlayers.recall.decodable import RIDGE, decodable, probed, streams
from memlayers.text import Text


def test_a_probe_is_ridge_regression():
    """As least squares with a row for each penalty."""
    features, classes = torch.randn(60, 5, generator=seeded()), torch.arange(60) % 3
    features += nn.functional.one_hot(classes, 5) * 1.5
    ours, theirs = features[:30].double(), features[30:].double()
    centre = ours.mean(dim=0)
    penalty = (RIDGE * ((ours - centre) ** 2).sum(dim=0).mean()) ** 0.5
    indicators = nn.functional.one_hot(classes, 3).double()
    mean = indicators[:30].mean(dim=0)
    left = torch.cat([ours - centre, torch.eye(5, dtype=torch.float64) * penalty])
    right = torch.cat([indicators[:30] - mean, torch.zeros(5, 3, dtype=torch.float64)])
    weights = torch.linalg.lstsq(left, right).solution
    wanted = (((theirs - centre) @ weights + mean).argmax(dim=1) == classes[30:]).double().mean()
    assert 0.5 < probed(features, classes) < 1
    assert probed(features, classes) == pytest.approx(float(wanted))


def test_what_is_there_is_found_and_what_is_not_is_not():
    classes = torch.randint(8, (800,), generator=seeded(1))
    codes = torch.randn(8, 16, generator=seeded(2))
    noise = torch.randn(800, 16, generator=seeded(3))
    assert probed(codes[classes] + 0.1 * noise, classes) > 0.98
    assert probed(noise, classes) < 0.25
    assert probed(torch.zeros(800, 16), classes) < 0.25  # the commonest, and no error


@pytest.fixture
def text() -> Text:
    return Text(small_world("biographies"), "prose")


def build(text: Text):
    return build_model(ModelConfig(ffn=Dense(), d_model=16, hidden=24), len(text.vocabulary), seeded())


def test_streams_are_those_of_each_sentence_alone(text):
    model, facts = build(text), known_facts(text.world)[:30]
    found = streams(model, text, facts)
    probe = text.probe(facts, "training", seeded(0))
    for index in range(len(facts)):
        row = probe.documents.tokens[index]
        row = row[row > 0]
        answer = int(probe.documents.answers[index].long().argmax())
        name = [token for token in text.subjects[facts[index, 0]].tolist() if token]
        start = next(at for at in range(len(row)) if row[at : at + len(name)].tolist() == name)
        x = model.embedding(row[None])
        for block, layer in enumerate(model.blocks):
            x, _ = layer(x, row[None])
            for place, at in (("at_name", start + len(name) - 1), ("at_answer", answer - 1)):
                torch.testing.assert_close(found[str(block)][place][index], x[0, at], rtol=1e-4, atol=1e-5)


def test_a_model_that_writes_objects_into_its_stream_has_them_there(text, monkeypatch):
    """Embeddings of names that say the first object: found at the name; the others are not."""
    world, model = text.world, build(text)
    assert decodable(model, Text(world, "terse")) is None
    found = decodable(model, text)
    assert found is not None and list(found) == ["0", "1"] and set(found["0"]) == {"at_name", "at_answer"}
    assert all(0 <= share <= 1 for places in found.values() for share in places.values())

    def told(model, text, facts):
        objects = world.facts[facts[:, 0]]
        names = nn.functional.one_hot(objects[:, 0].long(), 16).float()
        return {"0": {"at_name": names, "at_answer": torch.zeros_like(names)}}

    monkeypatch.setattr("memlayers.recall.decodable.streams", told)
    places = decodable(model, text)["0"]
    assert places["at_name"] >= 1 / 3 and places["at_answer"] < places["at_name"]
