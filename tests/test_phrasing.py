"""What training tells with each setting of prose, read back sentence by sentence."""

from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch
from reader import decoded
from stubs import name_of, seeded, small_world, spelt, templates_of

from memlayers.config.text import ProseConfig
from memlayers.config.worlds import BiographiesConfig
from memlayers.facts import build_world
from memlayers.facts.world import known_facts
from memlayers.recall.measure import phrasings
from memlayers.text import Text

KINDS = ("train", "held_out", "questions", "held_out_questions")


def text_with(document: str = "subject", sentences: int | None = None, **prose) -> Text:
    return Text(small_world("biographies"), "prose", document, sentences, ProseConfig(**prose), seed=7)


def told(text: Text, documents: int = 400) -> list[list[tuple[int, int, str, int]]]:
    """Of each document its sentences: subject, relation, kind and number of the template; answers are checked, too."""
    world = text.world
    known = {}
    for subject, relation in known_facts(world).tolist():
        gold = spelt(world, world.objects[relation][int(world.facts[subject, relation])])
        for kind in KINDS:
            for number, template in enumerate(templates_of(world, "prose", relation, kind)):
                for name in (name_of(world, subject), ["this", "one"]):
                    pieces = {"{subject}": name, "{object}": gold}
                    words = tuple(word for part in template for word in pieces.get(part, [part]))
                    marks = tuple(
                        mark for part in template for mark in [part == "{object}"] * len(pieces.get(part, [0]))
                    )
                    is_named = name != ["this", "one"]
                    known[(words, subject if is_named else None, tuple(gold))] = subject, relation, kind, number, marks
    by_words = defaultdict(list)
    for (words, subject, _), found in known.items():
        by_words[words].append((subject is not None, found))
    rows = []
    for words, marks in decoded(text, text.sample(documents, seeded(4))):
        row, start, subject = [], 0, None
        while start < len(words):
            end = words.index(".", start)
            candidates = by_words[words[start:end]]
            named, (of, relation, kind, number, wanted) = candidates[0]
            assert named == (subject is None or not text.telling.has_pronoun)
            if named:
                assert subject in (None, of)
                subject = of
            assert spelt(world, world.objects[relation][int(world.facts[subject, relation])]) == [
                word for word, mark in zip(words[start:end], wanted, strict=True) if mark
            ]
            assert marks[start : end + 1] == (*wanted, False)
            row.append((subject, relation, kind, number))
            start = end + 1
        rows.append(row)
    return rows


@pytest.mark.parametrize("pronoun", [False, True])
@pytest.mark.parametrize("sentences", [None, 1, 2, 9])
def test_documents_have_as_many_sentences_as_named(sentences, pronoun):
    rows = told(text_with(sentences=sentences, pronoun=pronoun))
    assert {len(row) for row in rows} == {min(3, sentences or 3)}  # of three relations
    assert all(len({relation for _, relation, _, _ in row}) == len(row) for row in rows)
    assert {kind for row in rows for _, _, kind, _ in row} == {"train"}


@pytest.mark.parametrize("sentences", [1, 2])
def test_a_fact_is_told_as_often_as_expected(sentences):
    """Counts are binomial with the shares promised; squared deviations add up to about a chi-square."""
    text, documents = text_with(sentences=sentences), 6_000
    counts = Counter(one[:2] for row in told(text, documents) for one in row)
    facts = known_facts(text.world)
    shares = text.exposures_per_document[facts[:, 0], facts[:, 1]]
    assert float(shares.sum()) == pytest.approx(sentences)
    assert text.mean_exposures == pytest.approx(sentences / len(facts))
    found = torch.tensor([counts[(s, r)] for s, r in facts.tolist()], dtype=torch.float64)
    squares = (found - documents * shares) ** 2 / (documents * shares * (1 - shares))
    assert abs(float(squares.mean()) - 1) < 6 * (2 / len(facts)) ** 0.5


def test_a_subject_without_all_facts_tells_those_it_has():
    world = small_world("airports")
    text = Text(world, "prose", "subject", 3)
    rows = decoded(text, text.sample(300, seeded()))
    assert {sum(word == "." for word in words) for words, _ in rows} == {3}
    facts = known_facts(world)
    expected = 3 / (world.facts >= 0).sum(dim=1)[facts[:, 0]] / len(world.subjects)
    torch.testing.assert_close(text.exposures_per_document[facts[:, 0], facts[:, 1]], expected.double())


@pytest.mark.parametrize("count", [1, 3])
def test_only_the_first_templates_are_told(count):
    text = text_with(num_templates=count)
    assert {number for row in told(text) for _, _, _, number in row} == set(range(count))
    asked = text.probe(known_facts(text.world).repeat(30, 1), "training", seeded()).documents.tokens
    assert len({tuple(row) for row in asked.tolist()}) == count * text.world.num_facts


def test_only_celebrities_are_told_in_many_templates():
    rows = told(text_with(celebrities=0.25), 3_000)
    seen = defaultdict(set)
    for subject, relation, _, number in (one for row in rows for one in row):
        seen[subject, relation].add(number)
    many = Counter(len(numbers) > 1 for (subject, _), numbers in seen.items() if subject < 60)
    assert len({subject for (subject, _), numbers in seen.items() if len(numbers) > 1}) == 15
    assert many[False] == 45 * 3
    assert len({min(numbers) for numbers in seen.values() if len(numbers) == 1}) > 20  # not the same for all


def test_questions_are_half_of_what_is_told_of_subjects_that_are_asked_about():
    text = text_with(questions=0.5)
    rows = told(text, 2_000)
    kinds = defaultdict(Counter)
    for subject, _, kind, _ in (one for row in rows for one in row):
        kinds[subject][kind] += 1
    asked = {subject for subject, count in kinds.items() if count["questions"]}
    assert asked == set(text.telling.is_asked.nonzero()[:, 0].tolist()) and len(asked) == 30
    assert {kind for count in kinds.values() for kind in count} == {"train", "questions"}
    share = sum(kinds[subject]["questions"] for subject in asked) / sum(sum(kinds[one].values()) for one in asked)
    assert abs(share - 0.5) < 0.03
    facts = known_facts(text.world)
    others = phrasings(text, facts)["questions"]
    assert {subject for subject, _ in others.tolist()} == set(range(60)) - asked
    assert not len(phrasings(text_with(), facts)["held_out_questions"])
    for kind in ("questions", "held_out_questions"):
        assert len(text.probe(facts, kind, seeded()).subject) == len(facts)


def test_celebrities_are_of_all_spellings_in_a_world_of_all_names():
    """Whose subjects are in the order of the first permutation that the seed draws."""
    config = BiographiesConfig(num_people=1_000, name_parts=[10, 10, 10], cardinalities=[8, 8])
    text = Text(build_world(config), "prose", prose=ProseConfig(celebrities=0.5))
    first = text.world.subjects[:, 0]
    shares = [float(text.telling.is_celebrity[first == name].double().mean()) for name in first.unique()]
    assert min(shares) > 0.3 and max(shares) < 0.7


def test_who_is_a_celebrity_follows_from_the_worlds_seed():
    first, again = (text_with(celebrities=0.5, questions=0.5).telling for _ in range(2))
    other = Text(small_world("biographies"), "prose", "subject", None, ProseConfig(celebrities=0.5), seed=8).telling
    assert first.is_celebrity.equal(again.is_celebrity) and first.is_asked.equal(again.is_asked)
    assert not first.is_celebrity.equal(other.is_celebrity) and not first.is_celebrity.equal(first.is_asked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prose": ProseConfig(pronoun=True)}, "world.prose.pronoun=True has no effect; accepted: with world.text"),
        ({"sentences": 2}, "world.sentences=2 has no effect; accepted: with world.document=subject"),
        ({"text": "prose", "prose": ProseConfig(pronoun=True)}, "world.prose.pronoun=true has no effect; accepted"),
        ({"text": "prose", "prose": ProseConfig(num_templates=0)}, "world.prose.num_templates=0 is"),
        ({"text": "prose", "prose": ProseConfig(celebrities=1.5)}, "world.prose.celebrities=1.5 is"),
        ({"document": "subject", "sentences": 0}, "world.sentences=0 is"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError) as caught:
        BiographiesConfig(name="b", **settings).validate()
    assert str(caught.value).startswith(message)


def test_what_a_world_cannot_tell_is_refused():
    world = small_world("triples")
    plain = replace(world, templates=tuple(replace(one, questions=()) for one in world.templates))
    with pytest.raises(ValueError) as caught:
        Text(plain, "prose", prose=ProseConfig(questions=0.5))
    assert str(caught.value) == "world.prose.questions=0.5: world triples has no questions; accepted: 0"
    with pytest.raises(ValueError) as caught:
        Text(small_world("triples"), "prose", "subject", 1)
    assert str(caught.value) == "world.sentences=1: facts of a subject differ in weight; accepted: null"
