"""Documents against the same documents written with strings and loops; exposures by counting."""

from collections import Counter

import pytest
import torch
from reader import Words, decoded, reader, small_text
from stubs import KINDS, WRITINGS, name_of, seeded, sentences, small_world, spelt, templates_of, write

from memlayers.config import BiographiesConfig, ModelConfig
from memlayers.facts import build_world
from memlayers.facts.world import END, PAD, known_facts
from memlayers.layers import LAYERS
from memlayers.model import build_model
from memlayers.text import Text

# --------------------------------------------------------------------------- no shortcut


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_a_row_has_one_subject_each_fact_once_and_no_held_out_sentence(kind, style):
    text = small_text(kind, style)
    told = set()
    for words, _ in decoded(text, text.sample(1_000, seeded())):
        facts = reader(kind, style).read(words)
        assert facts and len({subject for subject, _, _ in facts}) == 1
        assert len({relation for _, relation, _ in facts}) == len(facts)
        assert {phrasing for _, _, phrasing in facts} == {"train"}
        told.update((subject, relation) for subject, relation, _ in facts)
    assert told == set(map(tuple, known_facts(text.world).tolist()))


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_sentences_are_nowhere_in_training_documents(kind):
    """Tokens against tokens, at any place of any row; sentences to train on are found there in the same way."""
    text = small_text(kind, "prose")
    rows = [words for words, _ in decoded(text, text.sample(1_000, seeded()))]
    ids = {word: index for index, word in enumerate(text.vocabulary)}
    for phrasing, found in (("train", True), ("held_out", False)):
        told = {tuple(ids[word] for word in words) for _, _, words, _ in sentences(text.world, "prose", phrasing)}
        seen = set()
        for length in {len(tokens) for tokens in told}:
            for row in rows:
                seen |= {tuple(ids[word] for word in row[at : at + length]) for at in range(len(row) - length + 1)}
        assert told and bool(told & seen) == found


@pytest.mark.parametrize("layer", LAYERS)
def test_no_row_is_seen_from_another(layer):
    text = small_text("airports", "prose")
    tokens, other = (text.sample(6, seeded(seed)).tokens for seed in (1, 2))
    model = build_model(ModelConfig(ffn=layer()), len(text.vocabulary), seeded(), questions=tokens[:, :2])
    width = max(tokens.shape[1], other.shape[1])
    tokens, other = (torch.nn.functional.pad(table, (0, width - table.shape[1])) for table in (tokens, other))
    changed = other.clone()
    changed[2] = tokens[2]
    before, after = (model(table).logits.unflatten(0, (6, width)) for table in (tokens, changed))
    torch.testing.assert_close(after[2], before[2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after[3], before[3], atol=1e-3)


# --------------------------------------------------------------------------- the twin


def naive_sample(text: Text, num_documents: int, generator: torch.Generator) -> list[tuple[Words, tuple[bool, ...]]]:
    """Text.sample with the same draws, one document at a time."""
    world, count = text.world, len(text.world.relations)
    top = [max(row) for row in world.weights.double().tolist()]
    draws = torch.rand(num_documents, generator=generator, dtype=torch.float64).tolist()
    orders = torch.rand(num_documents, count, generator=generator).tolist()
    shown = torch.rand(num_documents, count, generator=generator, dtype=torch.float64).tolist()
    picks = torch.rand(num_documents, count, generator=generator).tolist()
    rows = []
    for draw, order, chance, pick in zip(draws, orders, shown, picks, strict=True):
        subject, left = 0, draw * sum(top)
        while left >= top[subject]:
            left -= top[subject]
            subject += 1
        told = []
        for place, relation in enumerate(sorted(range(count), key=order.__getitem__)):
            if chance[place] * top[subject] < float(world.weights[subject, relation]):
                templates = templates_of(world, text.style, relation, "train")
                told.append((relation, templates[int(pick[place] * len(templates))]))
        words, marks = write(world, text.style, subject, told)
        rows.append((tuple(words), tuple(marks)))
    return rows


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_documents_and_answers_are_those_of_the_naive_writer(kind, style):
    text = small_text(kind, style)
    assert decoded(text, text.sample(300, seeded(5))) == naive_sample(text, 300, seeded(5))


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_one_generator_state_gives_one_text(kind, style):
    text = small_text(kind, style)
    first, again, other = (text.sample(64, seeded(seed)) for seed in (1, 1, 2))
    assert first.tokens.equal(again.tokens) and first.answers.equal(again.answers)
    assert first.tokens.shape != other.tokens.shape or not first.tokens.equal(other.tokens)
    generator = seeded(1)
    both = text.sample(64, generator), text.sample(64, generator)
    assert both[0].tokens.equal(first.tokens) and decoded(text, both[1]) != decoded(text, first)
    assert text.sample(0, generator).tokens.shape[0] == 0


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_answers_are_whole_objects_after_their_subject_and_nothing_else(kind, style):
    """Read off the words alone: a sentence whose object comes first has no answer, any other exactly its object."""
    text = small_text(kind, style)
    world, asked = text.world, Counter()
    for words, marks in decoded(text, text.sample(300, seeded(6))):
        facts = reader(kind, style).read(words)
        objects = [spelt(world, world.objects[r][int(world.facts[s, r])]) for s, r, _ in facts]
        runs, before = [], False
        for word, mark in zip(words, marks, strict=True):
            if mark and not before:
                runs.append([])
            if mark:
                runs[-1].append(word)
            before = mark
        wanted = iter(objects)
        assert all(run in wanted for run in runs), (words, runs)  # in order, each one a whole object
        asked["all"] += len(facts)
        asked["answered"] += len(runs)
        assert not any(marks[: words.index(name_of(world, facts[0][0])[0]) + 1])
    share = asked["answered"] / asked["all"]
    backward = style == "prose" and kind == "triples"  # two of its templates have the object first
    assert 0.5 < share < 0.95 if backward else share == 1


def test_objects_of_different_lengths_end_and_others_do_not():
    text = small_text("triples", "terse")
    world = text.world
    for index, name in enumerate(world.relations):
        tables = [spelt(world, row) for row in world.objects[index]]
        lengths = {len(words) for words in tables}
        assert (len(lengths) > 1) == (name == "born in")
        assert all((words[-1] == "<end>") == (name == "born in") for words in tables)
    rows = decoded(text, text.sample(200, seeded()))
    for words, marks in rows:
        for place, word in enumerate(words):
            if word == "<end>":
                assert marks[place] and (place + 1 == len(words) or not marks[place + 1])
    assert any(words[-2:] == ("York", "<end>") for words, _ in rows)
    assert text.vocabulary[END] == "<end>" and text.vocabulary[PAD] == "<pad>"


# --------------------------------------------------------------------------- exposures


@pytest.mark.parametrize(("kind", "style"), WRITINGS)
def test_a_document_for_each_fact_tells_that_fact_and_as_often_as_expected(kind, style):
    """Counts are binomial with the shares promised; squared deviations add up to about a chi-square."""
    world, documents = small_world(kind), 6_000
    text = Text(world, style, "fact")
    counts: Counter[tuple[int, int]] = Counter()
    for words, _ in decoded(text, text.sample(documents, seeded(3))):
        (told,) = reader(kind, style).read(words)
        counts[told[:2]] += 1
    facts = known_facts(world)
    shares = text.exposures_per_document[facts[:, 0], facts[:, 1]]
    weights = world.weights[facts[:, 0], facts[:, 1]].double()
    torch.testing.assert_close(shares, weights / weights.sum())
    assert text.mean_exposures == pytest.approx(1 / len(facts))
    found = torch.tensor([counts[(s, r)] for s, r in facts.tolist()], dtype=torch.float64)
    assert int(found.sum()) == documents
    squares = (found - documents * shares) ** 2 / (documents * shares * (1 - shares))
    assert abs(float(squares.mean()) - 1) < 6 * (2 / len(facts)) ** 0.5


@pytest.mark.parametrize(("kind", "style"), [*WRITINGS, ("zipf", "terse")])
def test_exposures_are_as_frequent_as_expected(kind, style):
    """Each fact's count is binomial with the expected share; squared deviations add up to about a chi-square."""
    if kind == "zipf":
        config = BiographiesConfig(name=kind, num_people=60, name_parts=[60], cardinalities=[4], zipf=2.0)
        text = Text(build_world(config), style)
        names = {tuple(name_of(text.world, subject)): subject for subject in range(60)}
        weights = sorted(text.world.weights[:, 0].tolist(), reverse=True)
        assert weights == pytest.approx([rank**-2.0 for rank in range(1, 61)])
    else:
        text = small_text(kind, style)
    world, documents = text.world, 4_000
    total = sum(max(row) for row in world.weights.tolist())
    expected = {(s, r): float(world.weights[s, r]) / total for s, r in known_facts(world).tolist()}
    for (subject, relation), share in expected.items():
        assert float(text.exposures_per_document[subject, relation]) == pytest.approx(share, rel=1e-6)
    assert float(text.exposures_per_document[world.facts < 0].sum()) == 0

    counts: Counter[tuple[int, int]] = Counter()
    for words, _ in decoded(text, text.sample(documents, seeded(9))):
        told = [(names[words[:1]], 0)] if kind == "zipf" else [one[:2] for one in reader(kind, style).read(words)]
        counts.update(told)
    assert counts.keys() <= expected.keys()
    squares = [
        (counts[fact] - documents * share) ** 2 / (documents * share * (1 - share)) for fact, share in expected.items()
    ]
    freedom = len({subject for subject, _ in expected})  # facts of one subject are shown together
    assert max(squares) < 4.5**2
    assert sum(squares) / len(squares) < 1 + 4 * (2 / freedom) ** 0.5
