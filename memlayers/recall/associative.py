"""Recall from the row itself: does a memory in the place of a feed-forward harm what attention does?"""

import torch

from memlayers.model import Transformer
from memlayers.recall.ask import evaluation
from memlayers.text import Text

ROWS = 512
CHUNK = 128  # of them at once


@torch.no_grad()
def associative_recall(model: Transformer, text: Text) -> float | None:
    """Share of answer tokens in fresh rows that are the model's first choice; None where training has no such rows."""
    if text.associative is None:
        return None
    device = model.embedding.weight.device
    rows = text.associative(ROWS, torch.Generator().manual_seed(11))
    right = 0
    with evaluation(model):
        for tokens, answers in zip(rows.tokens.split(CHUNK), rows.answers.split(CHUNK), strict=True):
            where = answers[:, 1:].to(device)
            logits = model(tokens[:, :-1].to(device), where).logits
            right += int((logits.argmax(dim=-1).cpu() == tokens[:, 1:][answers[:, 1:]]).sum())
    return right / int(rows.answers.sum())
