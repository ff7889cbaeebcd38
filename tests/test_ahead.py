"""Batches that are drawn ahead: the same ones, no more than are wanted, and never in silence."""

import threading
import time
from typing import NamedTuple

import pytest
import torch
from stubs import small_world

from memlayers.text import Text
from memlayers.training.ahead import MOST, Ahead
from memlayers.training.learner import Batches


class One(NamedTuple):
    number: int


def test_they_are_the_batches_of_the_text_from_any_step_on():
    text = Text(small_world("biographies"), "prose")
    batches = Batches(text, 8, 30, (0, 1))
    for first in (0, 17):
        batches.first = first
        wanted, found = list(batches), list(Ahead(batches, pinned=False))
        assert len(wanted) == len(found) == 30 - first and len(Ahead(batches, pinned=False)) == 30
        for one, other in zip(wanted, found, strict=True):
            assert torch.equal(one.tokens, other.tokens) and torch.equal(one.answers, other.answers)


def test_no_more_are_drawn_than_may_wait_and_the_thread_ends_with_the_iteration():
    drawn: list[int] = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield One(drawn[-1])

    before = threading.active_count()
    taken = iter(Ahead(endless(), pinned=False))
    assert [next(taken).number for _ in range(3)] == [0, 1, 2] and threading.active_count() == before + 1
    time.sleep(0.3)
    assert 3 < len(drawn) <= 3 + MOST + 1  # one is in the thread's hand
    taken.close()
    assert threading.active_count() == before


def test_what_fails_is_raised_where_its_batch_would_have_come():
    def two():
        yield One(0)
        yield One(1)
        raise ZeroDivisionError("third")

    before = threading.active_count()
    taken = iter(Ahead(two(), pinned=False))
    assert [next(taken), next(taken)] == [One(0), One(1)]
    with pytest.raises(ZeroDivisionError, match="third"):
        next(taken)
    assert threading.active_count() == before
