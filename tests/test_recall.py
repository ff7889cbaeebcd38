"""Recall against models that look their answers up, so that what they know is known."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import KINDS, Lookup, certain, question, sentences, small_world, spelt, templates_of

from memlayers.config import MemoryConfig, ModelConfig
from memlayers.facts.world import END, PAD, World
from memlayers.training.learner import answer_loss
from memlayers.model import Transformer, build_model
from memlayers.recall.ask import ask, decode, majority_share, prior_bits, sample_facts, shuffled
from memlayers.text import Documents, Text, known_facts

WRITINGS = [(kind, style) for kind in KINDS for style in ("terse", "prose")]
PHRASINGS = ("training", "held_out")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_of(kind: str, style: str) -> tuple[Text, dict[str, int]]:
    text = Text(small_world(kind), style)
    return text, {word: index for index, word in enumerate(text.vocabulary)}


def oracle(text: Text) -> Lookup:
    """Knows every sentence that the naive writer tells; anything else leaves it without a clue."""
    ids = {word: index for index, word in enumerate(text.vocabulary)}
    known = {}
    for phrasing in PHRASINGS:
        for _, _, words, marks in sentences(text.world, text.style, phrasing):
            tokens = tuple(ids[word] for word in words)
            known |= {tokens[:at]: tokens[at] for at, mark in enumerate(marks) if mark}
    size = len(ids)
    return Lookup(size, lambda prefix: certain(size, known[prefix]) if prefix in known else torch.zeros(size))


def by_frequency(text: Text) -> Lookup:
    """Knows how often each object of a relation is told and nothing about any subject."""
    world, ids = text.world, {word: index for index, word in enumerate(text.vocabulary)}
    mass: list[Counter[tuple[int, ...]]] = [Counter() for _ in world.relations]
    for subject, relation in known_facts(world).tolist():
        spelling = tuple(spelt(world, world.objects[relation][int(world.facts[subject, relation])]))
        mass[relation][tuple(ids[word] for word in spelling)] += float(world.weights[subject, relation])
    questions = {}
    for subject in range(len(world.subjects) + len(world.unknown)):
        for relation in range(len(world.relations)):
            for phrasing in PHRASINGS:
                for template in templates_of(world, text.style, relation, phrasing):
                    words = question(world, subject, template)
                    questions[tuple(ids[word] for word in words)] = relation

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        length = next(length for length in range(len(prefix), 0, -1) if prefix[:length] in questions)
        begun, table = prefix[length:], mass[questions[prefix[:length]]]
        following = torch.zeros(len(ids), dtype=torch.float64)
        for spelling, weight in table.items():
            if spelling[: len(begun)] == begun and len(spelling) > len(begun):
                following[spelling[len(begun)]] += weight
        return following.log().float() if following.any() else torch.zeros(len(ids))

    return Lookup(len(ids), say)


# --------------------------------------------------------------------------- known models


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_an_oracle_is_always_right_and_never_surprised(kind, style, phrasing):
    text, _ = text_of(kind, style)
    world, facts = text.world, known_facts(text.world)
    answers = ask(oracle(text), text, facts, phrasing)
    wanted = [[s, r] for s, r in facts.tolist() if templates_of(world, style, r, phrasing)]
    assert torch.stack([answers.subject, answers.relation], dim=1).tolist() == wanted
    assert len(answers.exact) == len(answers.surprise) == len(wanted)
    assert answers.exact.all() and not answers.surprise.any()
    assert bool(wanted) == (style == "prose" or phrasing == "training")


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_a_uniform_guesser_pays_the_logarithm_of_the_vocabulary_for_each_token(kind, style):
    text, ids = text_of(kind, style)
    world = text.world
    answers = ask(Lookup(len(ids), lambda prefix: torch.zeros(len(ids))), text, known_facts(world), "training")
    lengths = [
        len(spelt(world, world.objects[r][int(world.facts[s, r])]))
        for s, r in zip(answers.subject.tolist(), answers.relation.tolist(), strict=True)
    ]
    assert answers.surprise.tolist() == pytest.approx([math.log2(len(ids)) * length for length in lengths], rel=1e-5)
    assert not answers.exact.any()


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_a_model_that_answers_by_frequency_stores_no_bit(kind, style, phrasing):
    """Its surprise at each fact is the fact's prior bits, so their difference vanishes fact by fact."""
    text, _ = text_of(kind, style)
    answers = ask(by_frequency(text), text, known_facts(text.world), phrasing)
    prior = prior_bits(text.world, torch.stack([answers.subject, answers.relation], dim=1))
    torch.testing.assert_close(answers.surprise.double(), prior, rtol=1e-5, atol=1e-5)
    assert abs(float(prior.sum() - answers.surprise.double().sum())) <= 1e-5 * len(prior)


def test_one_wrong_token_spoils_the_object_and_its_surprise_is_counted_in_bits():
    text, ids = text_of("airports", "terse")
    world, icao = text.world, text.world.relations.index("icao")
    facts = known_facts(world)
    facts = facts[facts[:, 1] == icao]
    right, size = oracle(text), len(ids)
    for spoiled in range(4):  # a token of four is given a quarter of the probability, and another one the rest

        def say(prefix, spoiled=spoiled):
            logits = right.say(prefix)
            token = int(logits.argmax())
            if len(prefix) != 3 + spoiled or not text.vocabulary[token].startswith("icao:"):
                return logits
            shared = torch.full((size,), -1000.0)
            shared[token], shared[END] = math.log(0.25), math.log(0.75)
            return shared

        answers = ask(Lookup(size, say), text, facts, "training")
        assert not answers.exact.any()
        assert answers.surprise.tolist() == pytest.approx([2.0] * len(facts), abs=1e-4)


def test_questions_in_pieces_are_answered_as_one(monkeypatch):
    text, _ = text_of("airports", "prose")
    facts, model = known_facts(text.world), small_model(text, 20)
    whole = ask(model, text, facts, "training")
    monkeypatch.setattr("memlayers.recall.ask.CHUNK", 7)
    pieces = ask(model, text, facts, "training")
    assert 0 < whole.exact.double().mean() < 1
    assert pieces.exact.equal(whole.exact) and pieces.subject.equal(whole.subject)
    torch.testing.assert_close(pieces.surprise, whole.surprise, rtol=1e-4, atol=1e-4)


def test_nothing_asked_is_nothing_answered():
    text, _ = text_of("readings", "terse")
    model = oracle(text)
    for facts, phrasing in ((known_facts(text.world), "held_out"), (known_facts(text.world)[:0], "training")):
        answers = ask(model, text, facts, phrasing)
        assert [len(part) for part in answers] == [0] * 4 and answers.exact.dtype == torch.bool
    assert not model.asked


# --------------------------------------------------------------------------- greedy decoding


def greedy(model, text: Text, documents: Documents, num_tokens: list[int]) -> tuple[list[list[int]], list[float]]:
    """One question and one token at a time; END ends an answer and nothing follows it."""
    answers, confidence = [], []
    for row, marks, length in zip(documents.tokens.tolist(), documents.answers.tolist(), num_tokens, strict=True):
        told, said, total = row[: marks.index(True)], [], 0.0
        while len(said) < length and (not said or said[-1] != END):
            tokens = torch.tensor([told + said])
            where = torch.zeros_like(tokens, dtype=torch.bool)
            where[0, -1] = True
            chances = model(tokens, where).logits[0].float().softmax(dim=-1).double()
            said.append(int(chances.argmax()))
            total += math.log(float(chances.max()))
        answers.append(said)
        confidence.append(total)
    return answers, confidence


def gold(text: Text, documents: Documents) -> list[list[int]]:
    rows = zip(documents.tokens.tolist(), documents.answers.tolist(), strict=True)
    return [[token for token, mark in zip(row, marks, strict=True) if mark] for row, marks in rows]


def small_model(text: Text, steps: int, ffn: str = "dense") -> Transformer:
    """A transformer of width 16 after so many steps on the text."""
    config = ModelConfig(d_model=16, hidden=32, ffn=MemoryConfig(num_keys=8, topk=4, d_key=8, sparse=False))
    if ffn == "dense":
        config = ModelConfig(d_model=16, hidden=32)
    model = build_model(config, len(text.vocabulary), seeded())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        answer_loss(model, text.sample(64, seeded(step)), "answers").backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("steps", [0, 15, 60])
@pytest.mark.parametrize(("kind", "ffn"), [("triples", "dense"), ("triples", "memory"), ("readings", "dense")])
def test_one_forward_pass_decides_what_greedy_decoding_would_say(kind, ffn, steps):
    text, _ = text_of(kind, "prose")
    model, facts = small_model(text, steps, ffn), known_facts(text.world)
    for phrasing in PHRASINGS:
        answers = ask(model, text, facts, phrasing)
        probe = text.probe(facts, phrasing, seeded())  # the same questions: their order is fixed
        true = gold(text, probe.documents)
        with torch.no_grad():
            said, confidence = greedy(model, text, probe.documents, [len(answer) for answer in true])
            tokens, log_probability = decode(model, probe.documents, torch.tensor([len(answer) for answer in true]))
        assert answers.exact.tolist() == [own == other for own, other in zip(said, true, strict=True)]
        assert [row[: len(one)] for row, one in zip(tokens.tolist(), said, strict=True)] == said
        assert log_probability.tolist() == pytest.approx(confidence, abs=1e-3)
        if steps == 0:
            assert not answers.exact.all()
    if steps == 60 and kind == "triples":
        assert 0.3 < answers.exact.double().mean() < 1, "some right and some wrong, or nothing was compared"


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), luck=st.floats(0, 4), phrasing=st.sampled_from(PHRASINGS))
def test_any_model_is_right_exactly_when_its_greedy_answer_is(seed, luck, phrasing):
    """Random scores of what comes next, with some luck for the truth."""
    text, ids = text_of("triples", "prose")
    right = oracle(text)

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        noise = torch.randn(len(ids), generator=seeded(hash((seed, prefix)) % 2**31))
        return noise + luck * (right.say(prefix) > 0)

    facts = known_facts(text.world)[:: 1 + seed % 3]
    answers = ask(Lookup(len(ids), say), text, facts, phrasing)
    probe = text.probe(facts, phrasing, seeded())
    true = gold(text, probe.documents)
    model = Lookup(len(ids), say)
    said, confidence = greedy(model, text, probe.documents, [len(answer) for answer in true])
    assert answers.exact.tolist() == [own == other for own, other in zip(said, true, strict=True)]
    tokens, log_probability = decode(model, probe.documents, torch.tensor([len(answer) for answer in true]))
    assert [row[: len(one)] for row, one in zip(tokens.tolist(), said, strict=True)] == said
    assert all(not any(row[len(one) :]) for row, one in zip(tokens.tolist(), said, strict=True))
    assert log_probability.tolist() == pytest.approx(confidence, abs=1e-4)
    hits = answers.exact
    torch.testing.assert_close(-answers.surprise[hits] * math.log(2), log_probability[hits], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_an_answer_stops_at_its_length_or_at_end(longest):
    """The model counts 2, 3, 4, END; after END or the length nothing is said and nothing is added to the confidence."""
    chain, size = [2, 3, 4, END, 2, 3], 8

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        logits = torch.full((size,), -1000.0)
        logits[chain[len(prefix) - 2]], logits[7] = math.log(0.5), math.log(0.25)
        logits[6] = math.log(0.25)
        return logits

    tokens = torch.tensor([[5, 5, 6, 6, 6], [5, 5, 6, 0, 0]])
    documents = Documents(tokens, torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]).bool())
    model = Lookup(size, say)
    said, confidence = decode(model, documents, torch.tensor([longest, 2]))
    wanted = [2, 3, 4, END][:longest]
    width = max(longest, 2)
    assert said.tolist() == [(wanted + [PAD] * width)[:width], ([2, 3] + [PAD] * width)[:width]]
    assert confidence.tolist() == pytest.approx([len(wanted) * math.log(0.5), 2 * math.log(0.5)], rel=1e-5)
    assert all(6 not in prefix for call in model.asked for prefix in call), "what the document says is not looked at"


# --------------------------------------------------------------------------- priors, controls, samples


def naive_prior(world: World, relation: int) -> dict[int, float]:
    mass: Counter[int] = Counter()
    for subject in range(len(world.subjects)):
        if int(world.facts[subject, relation]) >= 0:
            mass[int(world.facts[subject, relation])] += float(world.weights[subject, relation])
    return {row: weight / sum(mass.values()) for row, weight in mass.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_prior_bits_and_the_majority_by_counting(kind):
    world = small_world(kind)
    facts = known_facts(world)
    priors = [naive_prior(world, relation) for relation in range(len(world.relations))]
    wanted = [-math.log2(priors[r][int(world.facts[s, r])]) for s, r in facts.tolist()]
    assert prior_bits(world, facts).tolist() == pytest.approx(wanted, rel=1e-6)
    some = facts[1::2]
    assert prior_bits(world, some).tolist() == pytest.approx(wanted[1::2], rel=1e-6)
    for part in (facts, some):
        shares = []
        for relation, prior in enumerate(priors):  # of several equally common objects any will do
            mine = [int(world.facts[s, r]) for s, r in part.tolist() if r == relation]
            best = max(prior.values())
            shares.append({mine.count(row) for row, share in prior.items() if share == pytest.approx(best)})
        low, high = (sum(pick(found) for found in shares) / len(part) for pick in (min, max))
        assert low - 1e-9 <= majority_share(world, part) <= high + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_shuffled_control_deals_the_same_objects_to_other_subjects(kind):
    world = small_world(kind)
    before = world.facts.clone()
    control, again, other = (shuffled(world, seed) for seed in (1, 1, 2))
    assert control.equal(again) and not control.equal(other) and world.facts.equal(before)
    for own, dealt in zip(world.facts.T, control.T, strict=True):
        assert (own < 0).equal(dealt < 0) and not own.equal(dealt)
        assert Counter(own.tolist()) == Counter(dealt.tolist())


def test_against_the_shuffled_control_an_oracle_is_right_where_the_deal_changed_nothing():
    text, _ = text_of("triples", "prose")
    world = text.world
    control = shuffled(world, 1)
    answers = ask(oracle(text), text, known_facts(world), "training", control)
    pairs = list(zip(answers.subject.tolist(), answers.relation.tolist(), strict=True))
    same = [int(control[pair]) == int(world.facts[pair]) for pair in pairs]
    assert answers.exact.tolist() == same and 0 < sum(same) < len(same)
    assert (answers.surprise == 0).tolist() == same


def test_shuffles_give_every_subject_every_object_alike():
    world = small_world("triples")
    counts = Counter(int(shuffled(world, seed)[0, 1]) for seed in range(400))
    prior = Counter(world.facts[:, 1].tolist())
    for row, times in prior.items():
        share = times / len(world.subjects)
        assert abs(counts[row] - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_facts_is_seeded_without_repeats_and_grows(kind):
    world = small_world(kind)
    everything = set(map(tuple, known_facts(world).tolist()))
    assert sample_facts(world, world.num_facts).tolist() == known_facts(world).tolist()
    samples = [list(map(tuple, sample_facts(world, limit).tolist())) for limit in (1, 10, 30)]
    for limit, found in zip((1, 10, 30), samples, strict=True):
        assert len(found) == len(set(found)) == limit and set(found) <= everything
    assert all(long[: len(short)] == short for short, long in pairwise(samples))
    assert sorted(samples[-1]) != sorted(everything)[:30]
