"""Questions of a text, and the layer that knows which fact each of them asks for."""

import pytest
import torch
from contract import D_MODEL, drawn
from hypothesis import given
from hypothesis import strategies as st
from naive_tables import wrapped
from stubs import KINDS, question, seeded, small_world, templates_of

from memlayers.kernels import REFERENCE
from memlayers.layers import Oracle
from memlayers.layers.oracle import FactTable, prefix_codes
from memlayers.layers.site import Site
from memlayers.text import Text


def questions_of(text: Text) -> list[tuple[str, ...]]:
    """What stands before the object of each fact, in the order of the facts, by strings."""
    world, found = text.world, []
    for subject, relation in text.facts.tolist():
        (template,) = templates_of(world, text.style, relation, "training")
        found.append(tuple(question(world, subject, template)))
    return found


def layer_of(text: Text) -> FactTable:
    where = Site(D_MODEL, 12, len(text.vocabulary), REFERENCE, questions=text.questions())
    return drawn(Oracle().build(where))


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_what_the_naive_writer_puts_before_the_object(kind):
    text = Text(small_world(kind), "terse", "fact")
    words = [tuple(text.vocabulary[token] for token in row if token) for row in text.questions().tolist()]
    assert words == questions_of(text) and len(set(words)) == len(words) == text.world.num_facts
    assert text.questions().shape[1] == max(map(len, words))


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_fact_is_not_asked_in_one_way_there_are_no_questions(kind):
    for style, document in (("terse", "subject"), ("prose", "fact"), ("prose", "subject")):
        assert Text(small_world(kind), style, document).questions() is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_reads_the_row_of_its_fact_from_the_end_of_the_question_on(kind):
    text = Text(small_world(kind), "terse", "fact")
    layer, rows = layer_of(text), {words: index + 1 for index, words in enumerate(questions_of(text))}
    tokens, answers, _ = text.sample(200, seeded())
    reads = layer(torch.randn(*tokens.shape, D_MODEL), tokens).reads
    for row, marks, slots, weights in zip(tokens.tolist(), answers.tolist(), *reads, strict=True):
        begins = marks.index(True)
        own = rows[tuple(text.vocabulary[token] for token in row[:begins])]
        assert [slot for (slot,) in slots] == [0] * (begins - 1) + [own] * (len(row) - begins + 1)
        assert [weight for (weight,) in weights] == [float(slot > 0) for (slot,) in slots]
    assert len(layer.pool.values) == 1 + text.world.num_facts


@pytest.mark.parametrize("kind", KINDS)
def test_all_facts_have_rows_of_their_own_and_unknown_subjects_read_nothing(kind):
    text = Text(small_world(kind), "terse", "fact")
    world, layer = text.world, layer_of(text)
    asked = text.questions()
    length = (asked != 0).sum(dim=1)
    out = layer(torch.zeros(*asked.shape, D_MODEL), asked)
    last = out.reads.slots[torch.arange(len(asked)), length - 1, 0]
    assert last.equal(torch.arange(1, len(asked) + 1))
    strangers = torch.arange(len(world.subjects), len(world.subjects) + len(world.unknown))
    facts = torch.stack([strangers, torch.zeros_like(strangers)], dim=1)
    tokens = text.probe(facts, "training", seeded()).documents.tokens
    out = layer(torch.randn(*tokens.shape, D_MODEL), tokens)
    assert len(tokens) and not out.hidden.any() and not out.reads.weights.any()


def test_an_oracle_without_questions_is_one_line():
    where = Site(D_MODEL, 12, 11, REFERENCE)
    with pytest.raises(ValueError, match=r"^an oracle knows [^\n]*; accepted: world.text=terse, world.document=fact$"):
        Oracle().build(where)


@given(st.lists(st.integers(0, 2**31), max_size=8))
def test_codes_are_those_of_integers_that_wrap_by_hand(tokens):
    """splitmix64, whose shifts keep the sign here."""
    state, wanted = 0, []
    for token in tokens:
        state = wrapped((state ^ (token + 1)) * 0xBF58476D1CE4E5B9)
        state = wrapped((state ^ (state >> 27)) * 0x94D049BB133111EB)
        state ^= state >> 31
        wanted.append(state)
    assert prefix_codes(torch.tensor([tokens], dtype=torch.int64))[0].tolist() == wanted


def test_codes_tell_beginnings_apart_by_their_tokens_their_order_and_their_length():
    pairs = torch.cartesian_prod(torch.arange(100), torch.arange(100))
    codes = prefix_codes(pairs)
    assert codes[:, 1].unique().numel() == 10_000 and codes[:, 0].unique().numel() == 100
    assert not torch.isin(codes[:, 0], codes[:, 1]).any()
