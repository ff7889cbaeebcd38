"""Batches that are drawn ahead: the same ones, no more than are wanted, and never in silence."""

import threading
import time
from typing import NamedTuple

import pytest
import torch
from commands import digits, small
from stubs import small_world
from test_resume import stop_at

from memlayers.text import Text
from memlayers.training.ahead import MOST, Ahead
from memlayers.training.checkpoint import Interrupted
from memlayers.training.learner import Batches
from memlayers.training.run import run
from memlayers.training.trainer import fit


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


def test_a_training_from_them_has_the_same_digits_and_leaves_no_thread_also_where_it_is_stopped(tmp_path, monkeypatch):
    whole = run(small(tmp_path / "whole"))

    def ahead(trainer, learner, batches, keeper):
        fit(trainer, learner, Ahead(batches, pinned=False), keeper)

    monkeypatch.setattr("memlayers.training.run.fit", ahead)
    before, config = threading.active_count(), small(tmp_path / "ahead")
    with monkeypatch.context() as patch:
        stop_at(patch, 9)
        with pytest.raises(Interrupted):
            run(config)
    assert threading.active_count() == before
    assert digits(run(config)) == digits(whole) and threading.active_count() == before
