"""How well a model predicts running text that it was never trained on."""

import math

import torch

from memlayers.facts.world import SPECIAL_TOKENS
from memlayers.model import Transformer
from memlayers.recall.ask import evaluation
from memlayers.text import Text

MOST = 512  # stretches of each corpus
CHUNK = 64  # of them at once


@torch.no_grad()
def bits_per_byte(model: Transformer, text: Text) -> dict[str, float] | None:
    """By corpus, over stretches of its held-out text, each as long as in training; None without any running text.

    The first token of a stretch is given, and counts neither in bits nor in bytes.
    """
    if not text.world.corpora:
        return None
    device = model.embedding.weight.device
    sizes = torch.tensor([0 if word in SPECIAL_TOKENS else len(word) for word in text.vocabulary])  # a letter is a byte
    found = {}
    with evaluation(model):
        for corpus in text.world.corpora:
            length = text.corpus.length
            rows = corpus.held_out[: len(corpus.held_out) // length * length].view(-1, length)[:MOST]
            nats = 0.0
            for part in rows.to(device).split(CHUNK):
                logits = model(part[:, :-1]).logits.float()
                nats += float(torch.nn.functional.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
            found[corpus.name] = nats / math.log(2) / int(sizes[rows[:, 1:]].sum())
    return found
