"""Rows of tokens: what a model is trained on, and what it is asked."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Documents(NamedTuple):
    """Rows of tokens, padded on the right: b documents of up to s tokens."""

    tokens: Tensor  # (b, s)
    answers: Tensor  # (b, s) bool: tokens of objects that come after their subject


class Probe(NamedTuple):
    """Questions about facts, each a document of one sentence whose answer is known."""

    documents: Documents
    subject: Tensor  # (b,)
    relation: Tensor  # (b,)
    name: Tensor  # (b, w) tokens of the subject, as the question spells it


def chunks(probe: Probe, size: int) -> Iterator[Probe]:
    """The same questions in pieces of at most `size`."""
    for start in range(0, len(probe.subject), size):
        part = slice(start, start + size)
        yield Probe(Documents(*(table[part] for table in probe.documents)), *(table[part] for table in probe[1:]))
