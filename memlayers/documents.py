"""Rows of tokens: what a model is trained on, and what it is asked."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlayers.facts.world import PAD


class Documents(NamedTuple):
    """Rows of tokens, padded on the right: b documents of up to s tokens."""

    tokens: Tensor  # (b, s)
    answers: Tensor  # (b, s) bool: tokens of objects that come after their subject
    context: Tensor  # (b, s) bool: tokens in front, which are given to look facts up in, and never learnt


class Probe(NamedTuple):
    """Questions about facts, each a document of one sentence whose answer is known."""

    documents: Documents
    subject: Tensor  # (b,)
    relation: Tensor  # (b,)
    name: Tensor  # (b, w) tokens of the subject, as the question spells it


def squeezed(cells: Documents) -> Documents:
    """Rows without the empty cells that may stand anywhere in them, padded on the right: as wide as the longest."""
    filled = cells.tokens != PAD
    row, column = filled.nonzero(as_tuple=True)
    place = (filled.cumsum(dim=1) - 1)[row, column]
    width = int(filled.sum(dim=1).max()) if len(filled) else 0

    def moved(table: Tensor) -> Tensor:
        found = table.new_zeros(len(table), width)
        found[row, place] = table[row, column]
        return found

    return Documents(*map(moved, cells))


def joined(front: Documents, back: Documents) -> Documents:
    """Each row of the one, and after it that of the other."""
    return squeezed(Documents(*(torch.cat(pair, dim=1) for pair in zip(front, back, strict=True))))


def after_context(front: Tensor, documents: Documents) -> Documents:
    """Each row after one of `front` (b, s): a context, which is never learnt."""
    nothing = torch.zeros_like(front, dtype=torch.bool)
    return joined(Documents(front, nothing, front != PAD), documents)


def widened(table: Tensor, width: int) -> Tensor:
    """A table of tokens with columns of padding on the right: (..., width)."""
    return nn.functional.pad(table, (0, width - table.shape[-1]), value=PAD)


def mixed(documents: Documents, is_other: Tensor, others: Documents) -> Documents:
    """Documents, and those of `others` in the rows of `is_other` (b,)."""
    width = max(documents.tokens.shape[1], others.tokens.shape[1])
    rows = Documents(*(table.new_zeros(len(is_other), width) for table in documents))
    for table, own, other in zip(rows, documents, others, strict=True):
        table[~is_other], table[is_other] = widened(own, width), widened(other, width)
    return rows


def without_answers(tokens: Tensor) -> Documents:
    """Rows of tokens that answer nothing."""
    nothing = torch.zeros_like(tokens, dtype=torch.bool)
    return Documents(tokens, nothing, nothing)


def tagged(documents: Documents, tags: Tensor) -> Documents:
    """Documents with a token of `tags` (b,) in front, where it is not padding."""
    empty = torch.zeros_like(tags[:, None], dtype=torch.bool)
    return joined(Documents(tags[:, None], empty, empty), documents)


def chunks(probe: Probe, size: int) -> Iterator[Probe]:
    """The same questions in pieces of at most `size`."""
    for start in range(0, len(probe.subject), size):
        part = slice(start, start + size)
        yield Probe(Documents(*(table[part] for table in probe.documents)), *(table[part] for table in probe[1:]))
