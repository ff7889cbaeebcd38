"""Models that only look up, so that what they know is known; and small ones that are trained."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from stubs import PHRASINGS, ids_of, seeded, sentences
from torch import Tensor

from memlayers.config import ModelConfig
from memlayers.layers import Dense
from memlayers.model import Transformer, build_model
from memlayers.text import Text
from memlayers.training.learner import answer_loss

Say = Callable[[tuple[int, ...]], Tensor]  # tokens so far -> logits of the next


class Lookup:
    """Called like a Transformer; a function of the tokens so far says what comes next. Keeps what it was asked."""

    def __init__(self, num_tokens: int, say: Say):
        self.num_tokens, self.say = num_tokens, say
        self.embedding = SimpleNamespace(weight=torch.zeros(num_tokens, 1))
        self.asked: list[list[tuple[int, ...]]] = []  # of each call
        self.training = True
        self.blocks: list[object] = []  # without a stream to look into

    def tables(self) -> list[object]:
        """None: what it knows is in no table."""
        return []

    def train(self, mode: bool = True) -> "Lookup":
        self.training = mode
        return self

    def eval(self) -> "Lookup":
        return self.train(False)

    def __call__(self, tokens: Tensor, where: Tensor) -> SimpleNamespace:
        prefixes = [tuple(tokens[row, : column + 1].tolist()) for row, column in where.nonzero().tolist()]
        self.asked.append(prefixes)
        return SimpleNamespace(logits=torch.stack([self.say(prefix) for prefix in prefixes]))


def certain(num_tokens: int, token: int) -> Tensor:
    """Logits of a probability of exactly 1."""
    logits = torch.zeros(num_tokens)
    logits[token] = 1000.0
    return logits


def oracle(text: Text) -> Lookup:
    """Knows every sentence that the naive writer tells; anything else leaves it without a clue."""
    known, size = answers_of(text), len(text.vocabulary)
    return Lookup(size, lambda prefix: certain(size, known[prefix]) if prefix in known else torch.zeros(size))


def answers_of(text: Text) -> dict[tuple[int, ...], int]:
    """Every beginning of an answer that the naive writer tells, and the token that comes next."""
    ids, known = ids_of(text), {}
    for phrasing in PHRASINGS:
        for _, _, words, marks in sentences(text.world, text.style, phrasing):
            tokens = tuple(ids[word] for word in words)
            known |= {tokens[:at]: tokens[at] for at, mark in enumerate(marks) if mark}
    return known


def small_model(text: Text, steps: int, layer: object = None) -> Transformer:
    """A transformer of width 16 after so many steps on the text; dense where no layer is given."""
    config = ModelConfig(d_model=16, hidden=32, blocks="middle", ffn=layer or Dense())
    model = build_model(config, len(text.vocabulary), seeded(), sparse=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        answer_loss(model, text.sample(64, seeded(step)), "answers").backward()
        optimizer.step()
    return model
