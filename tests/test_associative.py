"""Rows of associative recall: what they hold and ask, by a reader that splits them, and models that copy or do not."""

import math
from dataclasses import replace

import pytest
import torch
from commands import refusal
from oracles import Lookup, certain, small_model
from stubs import seeded

from memlayers.config import BiographiesConfig
from memlayers.config.text import JunkConfig
from memlayers.recall.associative import associative_recall
from memlayers.recall.measure import measure
from memlayers.text import Text, text_of

BASE = BiographiesConfig(name="biographies", num_people=60, name_parts=[20] * 3, cardinalities=[7, 9])
LENGTH = 5  # tokens of a fact: three of a name, a relation, an object


def text_with(share: float, pairs: int) -> Text:
    return text_of(replace(BASE, junk=JunkConfig(share, pairs=pairs)))


def facts_in(row: list[int]) -> list[tuple[int, ...]]:
    assert len(row) % LENGTH == 0 and 0 not in row
    return [tuple(row[at : at + LENGTH]) for at in range(0, len(row), LENGTH)]


@pytest.mark.parametrize("pairs", [1, 4])
def test_every_fact_of_a_row_is_told_and_then_asked_in_another_order(pairs):
    text = text_with(0.5, pairs)
    known = {tuple(name) for name in torch.cat([text.world.subjects, text.world.unknown]).tolist()}
    rows = text.associative(500, seeded(1))
    assert rows.tokens.shape == (500, 2 * LENGTH * pairs) and not rows.context.any()
    relations, orders = set(), set()  # of all rows
    for row, answers in zip(rows.tokens.tolist(), rows.answers.tolist(), strict=True):
        facts = facts_in(row)
        told, asked = facts[:pairs], facts[pairs:]
        assert sorted(told) == sorted(asked)
        assert answers == [at >= LENGTH * pairs and at % LENGTH == LENGTH - 1 for at in range(len(row))]
        assert not known & {fact[:3] for fact in told}
        assert len({fact[3] for fact in told}) == 1
        relations.add(text.vocabulary[told[0][3]])
        if len(set(told)) == pairs:  # a fact may come twice, if rarely
            orders.add(tuple(told.index(fact) for fact in asked))
        for fact in told:
            relation = text.world.relations.index(text.vocabulary[fact[3]].strip("[]"))
            assert fact[4] in text.world.objects[relation][:, 0].tolist()
    assert relations == {"[birth_date]", "[birth_city]"} and len(orders) == math.factorial(pairs)


def test_the_share_of_rows_is_such_and_all_others_tell_facts():
    text, rows = text_with(0.3, 4), 4_000
    tokens = text.sample(rows, seeded(2)).tokens
    is_long = tokens[:, LENGTH] != 0
    assert abs(int(is_long.sum()) - 0.3 * rows) < 5 * math.sqrt(rows * 0.3 * 0.7)
    known = {tuple(name) for name in text.world.subjects.tolist()}
    assert {tuple(row[:3]) for row in tokens[~is_long].tolist()} <= known
    assert text.mean_exposures == pytest.approx(0.7 / text.world.num_facts)
    plain = text_of(BASE)
    assert plain.associative is None and plain.sample(100, seeded(2)).tokens.shape[1] == LENGTH


def test_a_batch_may_have_no_such_row():
    text = text_with(0.2, 4)
    assert text.associative(0, seeded()).tokens.shape[0] == 0
    widths = {text.sample(2, seeded(seed)).tokens.shape[1] for seed in range(30)}
    assert widths == {LENGTH, 8 * LENGTH}


def copying(text: Text, share: float) -> Lookup:
    """Says what followed when the last four tokens came before, if the object is among the first of the relation."""
    size = len(text.vocabulary)

    def say(prefix: tuple[int, ...]) -> torch.Tensor:
        wanted = prefix[-4:]
        for at in range(0, len(prefix) - 4, LENGTH):
            if prefix[at : at + 4] == wanted and hash(prefix[at : at + 5]) % 100 < 100 * share:
                return certain(size, prefix[at + 4])
        return torch.zeros(size)

    return Lookup(size, say)


def test_recall_of_models_that_copy():
    text = text_with(0.5, 4)
    assert associative_recall(copying(text, 1.0), text) > 0.999  # a name may come twice, with another object
    assert associative_recall(copying(text, 0.4), text) == pytest.approx(0.4, abs=0.05)
    assert associative_recall(copying(text, 0.0), text) == 0
    assert associative_recall(copying(text, 1.0), text_of(BASE)) is None


def test_every_record_of_such_a_text_has_it():
    text = text_with(0.5, 2)
    assert 0 <= measure(small_model(text, steps=2), text, documents=10)["associative"] <= 1
    plain = text_of(BASE)
    assert measure(small_model(plain, steps=1), plain, documents=10)["associative"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["world.junk.pairs=4"], "world.junk.pairs=4 has no effect; accepted: with world.junk.share above 0"),
        (["world.junk.share=0.5", "world.junk.pairs=101"], "world.junk.pairs=101 is out of range; accepted: 0 to 100"),
        (
            ["world=biographies_prose", "world.junk.share=0.5", "world.junk.pairs=4"],
            "world.junk.pairs=4: pairs have no sentences; accepted: world.text=terse",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words, said):
    assert refusal("world=biographies", *words).startswith(said)
