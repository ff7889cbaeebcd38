"""What questions are given beside what is learnt: how often it is the right document, and what it costs."""

from typing import Any

import torch
from torch import Tensor

from memlayers.text import Text

MOST = 2_000  # facts of each phrasing


def in_context(text: Text, asked: dict[str, Tensor]) -> dict[str, Any]:
    """Of facts (b, 2) by the phrasing that they are asked in, or of a sample.

    tokens: mean number before the answer in a training phrasing, those of the context among them: what asking costs.
    hits: by phrasing, the share of questions with a document of their subject in the context; null without a context.
    store_bytes: of the documents that are searched and their index; null where none are.
    """
    generator = torch.Generator().manual_seed(7)
    tokens, hits = 0.0, {}
    for phrasing, facts in asked.items():
        some = facts[torch.randperm(len(facts), generator=generator)[:MOST]]
        documents, subject, *_ = text.probe(some, phrasing, generator)
        if not len(subject):
            continue
        if phrasing == "training":
            tokens = float(documents.answers.long().argmax(dim=1).double().mean())
        if text.context is not None:
            found = text.context.subjects_for(documents, subject)
            hits[phrasing] = float((found == subject[:, None]).any(dim=1).double().mean())
    store = None if text.context is None else text.context.store
    return {"tokens": tokens, "hits": hits or None, "store_bytes": None if store is None else store.bytes}
