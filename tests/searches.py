"""Searches whose runs are made up, so that a trial takes milliseconds."""

import pytest

from memlayers.studies import search as module
from memlayers.studies.search import Search

MOST = 6  # trials
DENSE = ["training.exposures=4", "arm=dense"]
Call = tuple[str, tuple[str, ...], int]  # search, words, seed


def rate_in(words: list[str]) -> float:
    return float(next(word.partition("=")[2] for word in words if word.startswith("optim.lr=")))


def made_up(words: list[str], seed: int) -> float:
    """As if a rate of 0.01 were best: the same for the same words, and a little else on another seed."""
    return 0.9 * min(rate_in(words) / 0.01, 0.01 / rate_in(words)) + 0.001 * seed


def pretend(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What would have been run; recall is made up, and counts as so high that no search goes on beyond its trials."""
    found: list[Call] = []

    def recall(search: Search, words: list[str], seed: int) -> float:
        found.append((search.study.study_name, tuple(words), seed))
        return made_up(words, seed)

    monkeypatch.setattr(Search, "recall", recall)
    monkeypatch.setattr(module, "SATURATED", 0.0)
    return found


def finish(search: Search, most: int = MOST) -> Search:
    while search.step(most):
        pass
    return search
