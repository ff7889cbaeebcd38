"""What stands in front of documents and questions: whose it is, in which words, and that none of it is learnt."""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from reader import decoded, reader
from stubs import name_of, seeded, sentences, small_world, spelt, tiny
from torch.nn import functional as F

from memlayers.config import BiographiesConfig, ModelConfig, OptimConfig, TrainingConfig
from memlayers.config.digest import digest
from memlayers.config.text import ContextConfig, ProseConfig
from memlayers.documents import Documents
from memlayers.facts.world import known_facts
from memlayers.layers import Memory
from memlayers.model import build_model
from memlayers.optim.rules import RowwiseAdagrad
from memlayers.recall.addresses import name_ends
from memlayers.recall.context import in_context
from memlayers.text import Text
from memlayers.training.learner import answer_loss
from memlayers.training.plan import plan
from memlayers.training.restore import restored
from memlayers.training.run import run

KINDS = ("biographies", "airports")
SETTINGS = {"given": ContextConfig("given"), "one": ContextConfig("retrieved"), "two": ContextConfig("retrieved", 2)}
ASKED = ("training", "held_out", "questions", "held_out_questions")
RESULTS = Path(__file__).parent.parent / "results"


def text_in(kind: str, setting: str | None, **prose) -> Text:
    """Of a small world in prose; without a context by default."""
    if setting in ("one", "two"):
        pytest.importorskip("bm25s")
    context = None if setting is None else SETTINGS[setting]
    return Text(small_world(kind), "prose", "subject", None, ProseConfig(**prose), seed=3, context=context)


def split(text: Text, documents: Documents) -> list[tuple[list[tuple[str, ...]], tuple[str, ...]]]:
    """Of each row the documents in its context, each as many sentences as its subject has facts, and the rest."""
    rows, read = [], reader(kind_of(text), "prose")
    for (words, marks), given in zip(decoded(text, documents), documents.context.tolist(), strict=True):
        length = sum(given)
        assert all(given[:length]) and not any(marks[:length]), "in front, and never an answer"
        front, found = words[:length], []
        while front:
            end = max(at for at in range(1, len(front) + 1) if one_subject(read, front[:at]))
            found.append(front[:end])
            front = front[end:]
        rows.append((found, words[length:]))
    return rows


def kind_of(text: Text) -> str:
    return next(kind for kind in KINDS if small_world(kind) is text.world)


def one_subject(read, words: tuple[str, ...]) -> bool:
    """Whether these are whole sentences about one subject, each of another relation."""
    if words[-1] != ".":
        return False
    return any(
        len({s for s, _, _ in one}) == 1 and len({r for _, r, _ in one}) == len(one) for one in read.readings(words)
    )


def subject_of(text: Text, words: tuple[str, ...]) -> int:
    """Of a document that tells, in training's words, all that is known of a subject."""
    facts = reader(kind_of(text), "prose").read(words)
    (subject,) = {subject for subject, _, _ in facts}
    assert {phrasing for _, _, phrasing in facts} == {"train"}
    assert sorted(relation for _, relation, _ in facts) == (text.world.facts[subject] >= 0).nonzero()[:, 0].tolist()
    return subject


# --------------------------------------------------------------------------- given


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_given_is_a_fresh_document_of_the_subject_in_words_of_training(kind):
    text, plain = text_in(kind, "given"), text_in(kind, None)
    seen = Counter()
    for (front, rest), (bare, _) in zip(
        split(text, text.sample(60, seeded(1))), decoded(plain, plain.sample(60, seeded(1))), strict=True
    ):
        assert rest == bare and len(front) == 1  # what is told is what would be told without a context
        (subject,) = {one for one, _, _ in reader(kind, "prose").read(rest)}
        assert subject_of(text, front[0]) == subject
        seen[front[0]] += 1
    assert max(seen.values()) == 1 and len(seen) == 60  # no document twice


@pytest.mark.parametrize("phrasing", ASKED)
def test_each_question_comes_after_the_document_with_its_answer(phrasing):
    text, plain = text_in("biographies", "given"), text_in("biographies", None)
    facts = known_facts(text.world)[::3]
    probe, bare = (one.probe(facts, phrasing, seeded(2)) for one in (text, plain))
    rows = zip(facts.tolist(), split(text, probe.documents), decoded(plain, bare.documents), strict=True)
    for (subject, relation), (front, rest), (words, _) in rows:
        assert rest == words and subject_of(text, front[0]) == subject
        (answer,) = spelt(text.world, text.world.objects[relation][int(text.world.facts[subject, relation])])
        assert answer in front[0]


def test_an_unknown_subject_is_asked_about_after_another_ones_document():
    text = text_in("biographies", "given")
    strangers = torch.arange(60, 90)
    probe = text.probe(torch.stack([strangers, strangers % 3], dim=1), "training", seeded())
    for stranger, (front, rest) in zip(strangers.tolist(), split(text, probe.documents), strict=True):
        name = tuple(name_of(text.world, stranger))
        assert name in {rest[at : at + len(name)] for at in range(len(rest))}
        assert 0 <= subject_of(text, front[0]) < 60


# --------------------------------------------------------------------------- retrieved


def bm25(question: tuple[str, ...], store: list[tuple[str, ...]], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """The score of each document, word by word (Robertson et al. 1995, with Lucene's weights)."""
    mean = sum(map(len, store)) / len(store)
    scores = [0.0] * len(store)
    for word in question:
        counts = [document.count(word) for document in store]
        holding = sum(map(bool, counts))
        weight = math.log(1 + (len(store) - holding + 0.5) / (holding + 0.5))
        for index, (count, document) in enumerate(zip(counts, store, strict=True)):
            scores[index] += weight * count / (count + k1 * (1 - b + b * len(document) / mean))
    return scores


def stored(text: Text) -> list[tuple[str, ...]]:
    return [tuple(spelt_row(text, row)) for row in text.context.store.tokens.tolist()]


def spelt_row(text: Text, row: list[int]) -> list[str]:
    return [text.vocabulary[token] for token in row if token]


@pytest.mark.parametrize("setting", ["one", "two"])
@pytest.mark.parametrize("pronoun", [False, True])
def test_what_is_retrieved_has_the_highest_scores_of_a_naive_bm25(setting, pronoun):
    """For what stands before the first answer; of documents of equal score any will do."""
    text, plain = (text_in("biographies", one, pronoun=pronoun) for one in (setting, None))
    store, facts = stored(text), known_facts(text.world)[::6]
    assert len(store) == len(set(store)) == 60
    missed = 0
    for phrasing in ASKED:
        probe, bare = (one.probe(facts, phrasing, seeded(2)) for one in (text, plain))
        chosen = text.context.subjects_for(bare.documents, bare.subject)
        assert chosen.equal(text.context.subjects_for(probe.documents, probe.subject))
        rows = decoded(plain, bare.documents)
        for given, tokens, subjects, (words, marks) in zip(
            probe.documents.context.tolist(), probe.documents.tokens.tolist(), chosen.tolist(), rows, strict=True
        ):
            scores = bm25(words[: marks.index(True)], store)
            best = sorted(scores, reverse=True)[: len(subjects)]
            assert [scores[subject] for subject in subjects] == pytest.approx(best, rel=1e-5)
            front = tuple(text.vocabulary[token] for token, mark in zip(tokens, given, strict=True) if mark)
            assert front == sum((store[subject] for subject in subjects), ())
            missed += subjects[0] != facts[rows.index((words, marks)), 0]
    assert 0 < missed < 2 * len(facts)  # names share their parts


def test_a_training_document_comes_after_what_its_first_sentence_finds():
    text, plain = text_in("biographies", "two"), text_in("biographies", None)
    store = stored(text)
    told = decoded(plain, plain.sample(30, seeded(4)))
    for row, given, (words, marks) in zip(
        *(one.tolist() for one in text.sample(30, seeded(4))[::2]), told, strict=True
    ):
        scores = bm25(words[: marks.index(True)], store)
        front = spelt_row(text, [token for token, mark in zip(row, given, strict=True) if mark])
        first, second = (
            scores[subject]
            for subject in next(
                (i, j) for i in range(60) for j in range(60) if list(store[i] + store[j]) == front and i != j
            )
        )
        assert [first, second] == pytest.approx(sorted(scores, reverse=True)[:2], rel=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_held_out_sentence_stands_in_training_or_in_a_context(setting):
    text = text_in("biographies", setting, questions=0.5)
    rows = [words for words, _ in decoded(text, text.sample(300, seeded()))]
    for phrasing in ("held_out", "held_out_questions"):
        documents = text.probe(known_facts(text.world), phrasing, seeded()).documents
        rows += [spelt_row(text, row) for row in (documents.tokens * documents.context).tolist()]
    for phrasing, found in (("train", True), ("held_out", False), ("held_out_questions", False)):
        told = {" ".join(words) for _, _, words, _ in sentences(text.world, "prose", phrasing)}
        joined = "\n".join(" ".join(row) for row in rows)
        assert any(one in joined for one in told) == found


# --------------------------------------------------------------------------- what it costs, and what is learnt


@pytest.mark.parametrize("loss", ["answers", "all"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_loss_is_of_what_comes_after_the_context(setting, loss):
    """Row by row, position by position, without padding."""
    text = text_in("biographies", setting)
    documents = text.sample(4, seeded())
    model = build_model(ModelConfig(ffn=Memory(num_keys=8), d_model=16, hidden=24), len(text.vocabulary), seeded())
    losses = []
    for tokens, answers, context in zip(*(table.tolist() for table in documents), strict=True):
        row = [token for token in tokens if token]
        logits = model(torch.tensor([row[:-1]])).logits
        for at in range(1, len(row)):
            if answers[at] if loss == "answers" else at >= sum(context):
                losses.append(F.cross_entropy(logits[at - 1], torch.tensor(row[at])))
    assert documents.context.any(dim=1).all() and losses
    torch.testing.assert_close(answer_loss(model, documents, loss), torch.stack(losses).mean())


@pytest.mark.parametrize("setting", [None, *SETTINGS])
def test_flops_are_of_all_tokens_and_the_head_is_paid_for_where_something_is_learnt(setting, tmp_path):
    """At as many exposures, a context makes a run longer, and by as much as its tokens say."""
    if setting in ("one", "two"):
        pytest.importorskip("bm25s")
    chosen = plan(small_run(tmp_path, setting, TrainingConfig(exposures=4, batch_tokens=512, loss="all")))
    documents = chosen.text.sample(4096, seeded())
    lengths = [sum(map(bool, row)) - 1 for row in documents.tokens.tolist()]
    fronts = [sum(row) for row in documents.context.tolist()]
    assert chosen.work.sequence == pytest.approx(sum(lengths) / len(lengths))
    learnt = [length - max(0, front - 1) for length, front in zip(lengths, fronts, strict=True)]
    assert chosen.work.scored == pytest.approx(sum(learnt) / len(learnt))
    assert chosen.exposures == pytest.approx(4, rel=0.1)
    assert chosen.tokens == pytest.approx(4 * 20 * sum(lengths) / len(lengths), rel=0.1)
    assert (sum(fronts) > 0) == (setting is not None)


def small_run(folder: Path, setting: str | None, training: TrainingConfig):
    context = ContextConfig() if setting is None else SETTINGS[setting]
    world = {"num_people": 20, "name_parts": [5, 5], "cardinalities": [4, 4], "text": "prose", "document": "subject"}
    layers = {
        "model": ModelConfig(ffn=Memory(num_keys=8), d_model=16, hidden=64),
        "optim": OptimConfig(values=RowwiseAdagrad()),
    }
    return tiny(folder, world=BiographiesConfig(name="bio", **world, context=context), training=training, **layers)


@pytest.mark.parametrize("setting", [None, *SETTINGS])
def test_a_record_says_how_often_the_right_document_is_there_and_what_a_question_takes(setting, tmp_path):
    if setting in ("one", "two"):
        pytest.importorskip("bm25s")
    config = small_run(tmp_path, setting, TrainingConfig(steps=2, batch_tokens=256, probes=1, loss="all"))
    found = json.loads(json.dumps(run(config), allow_nan=False))["recall"]
    hits = found["context"]["hits"]
    assert (found["context"]["store_bytes"] is None) == (setting in (None, "given"))
    assert hits is None if setting is None else set(hits) == {"training", "held_out"}
    assert setting != "given" or set(hits.values()) == {1.0}
    assert setting != "one" or 0 < hits["held_out"] < 1
    assert found["unknown"]["auroc"] is not None and found["addresses"]


@pytest.mark.parametrize("setting", [None, *SETTINGS])
def test_hits_and_tokens_by_counting(setting):
    text = text_in("biographies", setting)
    facts = known_facts(text.world)
    found = in_context(text, {"training": facts, "held_out": facts, "questions": facts[:0]})
    generator, wanted = seeded(7), {}
    for phrasing in ("training", "held_out"):
        order = facts[torch.randperm(len(facts), generator=generator)]
        documents = text.probe(order, phrasing, generator).documents
        if phrasing == "training":
            before = [row.index(True) for row in documents.answers.tolist()]
            assert found["tokens"] == pytest.approx(sum(before) / len(before))
        if setting is not None:
            rows = split(text, documents)
            right = [
                s in {subject_of(text, one) for one in front}
                for (s, _), (front, _) in zip(order.tolist(), rows, strict=True)
            ]
            wanted[phrasing] = sum(right) / len(right)
    assert found["hits"] == (pytest.approx(wanted) if wanted else None)
    if setting in ("one", "two"):
        assert found["store_bytes"] > 2 * sum(map(len, stored(text)))


def test_a_name_is_looked_for_behind_the_context():
    text, plain = text_in("biographies", "given"), text_in("biographies", None)
    facts = known_facts(text.world)
    probe, bare = (one.probe(facts, "held_out", seeded()) for one in (text, plain))
    assert name_ends(probe).equal(name_ends(bare) + probe.documents.context.sum(dim=1))


# --------------------------------------------------------------------------- settings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("document", ["fact", "subject"])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_in_terse_text_all_facts_of_the_subject_stand_in_front(kind, document, setting):
    """Each as its name, once, and a relation and an object of each fact."""
    if setting != "given":
        pytest.importorskip("bm25s")
    text = Text(small_world(kind), "terse", document, seed=3, context=SETTINGS[setting])
    assert text.questions() is None and text.context is not None
    probe = text.probe(text.facts, "training", seeded(1))
    whose = text.context.subjects_for(probe.documents, probe.subject)
    assert (whose[:, 0] == probe.subject).double().mean() > 0.9
    known = text.vocabulary
    for row, (tokens, context, people) in enumerate(
        zip(probe.documents.tokens, probe.documents.context, whose, strict=True)
    ):
        words, expected = [known[token] for token in tokens[context]], Counter()
        for person in people.tolist():
            expected.update(known[token] for token in text.subjects[person] if token)
            for place, value in enumerate(text.world.facts[person].tolist()):
                if value >= 0:
                    object_ = text.objects[text.first_object[place] + value]
                    expected.update([f"[{text.world.relations[place]}]", *(known[token] for token in object_ if token)])
        assert Counter(words) == expected
        answer = tokens[probe.documents.answers[row]]
        assert torch.equal(answer, tokens[~context & (tokens != 0)][-len(answer) :])
    told = text.sample(50, seeded(2))
    assert not (told.context & told.answers).any() and told.answers.any(dim=1).all()


def test_digests_of_committed_records_are_what_they_were():
    for study in ("language", "slots", "noise"):
        for line in (RESULTS / study / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            config = restored(record["config"])
            assert config.world.context == ContextConfig() and digest(config) == record["digest"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"text": "prose", "context": ContextConfig("given")},
            "source=given: a document tells all facts of its subject; accepted: in prose with world.document=subject",
        ),
        ({"context": ContextConfig("found")}, "source='found' is not known; accepted: none, given, retrieved"),
        ({"context": ContextConfig(documents=2)}, "documents=2 has no effect; accepted: with world.context.source="),
        (
            {"context": ContextConfig("retrieved", 0), "text": "prose", "document": "subject"},
            "documents=0 is too small",
        ),
        (
            {"context": ContextConfig("given", 2), "text": "prose", "document": "subject"},
            "documents=2 has no effect; accepted: with world.context.source=retrieved",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        BiographiesConfig(name="b", **settings).validate()
    assert str(caught.value).startswith(f"world.context.{message}") and "\n" not in str(caught.value)


def test_more_documents_than_there_are_and_a_missing_package_are_one_line_each(monkeypatch):
    world = small_world("biographies")
    with pytest.raises(ValueError) as caught:
        Text(world, "prose", "subject", context=ContextConfig("retrieved", 61))
    assert str(caught.value) == "world.context.documents=61: there is one of each subject; accepted: 1 to 60"
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ValueError) as caught:
        Text(world, "prose", "subject", context=ContextConfig("retrieved"))
    assert str(caught.value) == (
        'world.context.source=retrieved needs the package bm25s; accepted: pip install -e ".[grounding]" '
        "-c constraints.txt"
    )
