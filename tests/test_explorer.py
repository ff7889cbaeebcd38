"""The slot explorer's numbers are those of the model: its scores, weights, answers and readers, by other ways."""

import base64

import numpy
import pytest
import torch
from commands import GATED, unasked
from test_trained import WORDS

import memlayers
from memlayers import tracing
from memlayers.facts.world import PAD, known_facts
from memlayers.studies.page import explorer
from memlayers.studies.page.explorer import explored
from memlayers.training.record import model_path
from memlayers.training.run import run


@pytest.fixture(scope="module", params=["ffn=memory", GATED])
def shown(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    config = unasked(*WORDS, *request.param.split(), f"results={folder}", "training.exposures=20")
    run(config)
    model = memlayers.load(model_path(config))
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    data = explored(model, str(model_path(config)), most=45)
    assert all(value.equal(before[name]) for name, value in model.model.state_dict().items())
    return model, data


def array(text: str, kind: str) -> numpy.ndarray:
    return numpy.frombuffer(base64.b64decode(text), kind)


def fact_of(model, data, index: int) -> tuple[int, int]:
    fact = data["facts"][index]
    return model.fact(data["subjects"][fact["subject"]], data["relations"][fact["relation"]])


def scores_in(data, layer) -> numpy.ndarray:
    """(f, h, two, n), as the page's script has them."""
    shape = len(data["facts"]), layer["heads"], 2, layer["n"]
    return layer["low"] + layer["step"] * array(layer["scores"], "u1").reshape(shape)


def test_every_fact_of_some_subjects_is_there_once(shown):
    model, data = shown
    facts = [fact_of(model, data, index) for index in range(len(data["facts"]))]
    subjects = {subject for subject, _ in facts}
    assert len(set(facts)) == len(facts) and len(data["subjects"]) == len(subjects) == 45 // 7
    assert set(facts) == {tuple(fact) for fact in known_facts(model.text.world).tolist() if fact[0] in subjects}
    assert 0 < data["recall"] <= 1 and data["known"] == len(known_facts(model.text.world))


def test_the_best_sums_of_half_scores_are_what_the_model_reads(shown):
    """All n * n slots scored, without product keys; weights by a softmax of our own."""
    model, data = shown
    for index in (0, 7, 30):
        exact = tracing.scores_of(model, fact_of(model, data, index))
        reads = tracing.slots_of(model, fact_of(model, data, index))
        for layer in data["layers"]:
            rows, columns = exact[layer["place"]].unbind(dim=1)
            best = (rows[:, :, None] + columns[:, None]).flatten(1).topk(layer["topk"])
            assert best.indices.flatten().tolist() == reads[layer["place"]].slots.tolist()
            weights = best.values.softmax(dim=-1).flatten()
            torch.testing.assert_close(weights, reads[layer["place"]].weights, rtol=1e-4, atol=1e-6)
            ours = data["facts"][index]["reads"][layer["place"]]
            assert [slot for slot, _ in ours] == best.indices.flatten().tolist()
            assert [weight for _, weight in ours] == pytest.approx(weights.tolist(), rel=1e-3)
            assert numpy.abs(scores_in(data, layer)[index] - exact[layer["place"]].numpy()).max() <= (
                0.501 * layer["step"]
            )


def test_scores_are_those_of_normed_halves_of_a_query_and_of_keys(shown):
    """By loops, from the residual stream that goes into the lookup."""
    model, data = shown
    place, fact = data["layers"][0]["place"], fact_of(model, data, 3)
    lookup = tracing.lookup_at(model, place)
    given = []
    with lookup.register_forward_pre_hook(lambda _, x: given.append(x[0][0, -1])), torch.no_grad():
        model.model(model.question(fact)[None])
        width = lookup.keys.shape[-1]
        query = (lookup.to_query.weight @ given[0]).view(lookup.heads, 2, width)
        found = tracing.scores_of(model, fact)[place]
        for head, half, key in [(0, 0, 0), (1, 1, 5), (3, 0, 15), (2, 1, 9)]:
            normed = [
                vector / vector.pow(2).mean().add(torch.finfo(torch.float32).eps).sqrt() * gain
                for vector, gain in zip((query[head, half], lookup.keys[head, half, key]), lookup.gains, strict=True)
            ]
            expected = float(normed[0] @ normed[1]) / width**0.5
            assert float(found[head, half, key]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_answers_are_the_models_own_with_its_slots_and_without(shown):
    model, data = shown
    for index in (0, 20):
        fact, own = fact_of(model, data, index), data["facts"][index]
        names = data["subjects"][own["subject"]], data["relations"][own["relation"]]
        changed = tracing.copied(model)
        tracing.forget(changed, fact)
        for asked, told in ((model, own["answers"]), (changed, own["without"])):
            reply = asked.ask(*names)
            assert [answer for answer, _ in told] == list(reply.objects) and reply.truth == own["truth"]
            assert [p for _, p in told] == pytest.approx(reply.probabilities, rel=1e-3)
        assert own["tokens"][-1] == f"[{names[1]}]"


def test_readers_of_slots_are_counted_as_by_asking_each_fact(shown):
    model, data = shown
    layer, world = data["layers"][0], model.text.world
    counts = numpy.zeros(layer["n"] ** 2, dtype=int)
    by_fact = {}
    for subject, relation in known_facts(world).tolist():
        tokens = [token for token in model.text.subjects[subject].tolist() if token != PAD]
        tokens.append(model.text.vocabulary.index(f"[{world.relations[relation]}]"))
        with torch.no_grad():
            slots = set(model.model(torch.tensor([tokens])).reads[layer["place"]].slots[0, -1].tolist())
        by_fact[subject, relation] = slots
        counts[list(slots)] += 1
    assert array(layer["readers"], "<u2").tolist() == counts.tolist()
    own = {slot: readers for place, slot, _, _, readers, _ in data["facts"][0]["slots"] if place == layer["place"]}
    assert own.keys() == by_fact[fact_of(model, data, 0)]
    assert own == {slot: counts[slot] - 1 for slot in own}


@pytest.mark.parametrize("arm", ["ngram", "dense"])
def test_a_model_without_product_keys_is_refused_in_one_line(arm, tmp_path):
    config = unasked(*WORDS, f"arm={arm}", f"results={tmp_path}", "training.exposures=1")
    run(config)
    with pytest.raises(ValueError, match=rf"^arm {arm} has no product keys; accepted: a run of memory or another"):
        explored(memlayers.load(model_path(config)), str(model_path(config)))


def test_more_slots_than_fit_a_page_are_refused_in_one_line(shown, monkeypatch):
    monkeypatch.setattr(explorer, "MOST_BYTES", 16 * 16 * 2 * len(shown[1]["layers"]) + 100)
    with pytest.raises(ValueError, match=r"^num_keys=16 and 7 relations: too many for a page; accepted: a run with fe"):
        explored(shown[0], "run")
