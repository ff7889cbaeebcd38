"""Asking a model what it knows: whole objects, bits, and whether it knows what it does not know."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from memlayers.documents import Documents, chunks
from memlayers.facts.world import END, PAD, World, known_facts
from memlayers.model import Transformer
from memlayers.text import Text

CHUNK = 2048  # questions a forward pass


class Answers(NamedTuple):
    """What came back, for each of b questions."""

    subject: Tensor  # (b,)
    relation: Tensor  # (b,)
    exact: Tensor  # (b,) bool: every token of the object is the model's first choice, as greedy decoding would find
    surprise: Tensor  # (b,) bits of the whole object


@contextmanager
def evaluation(model: Transformer) -> Iterator[None]:
    """Within, the model is in evaluation mode; then in the mode that it was in, as training goes on after a probe."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def ask(
    model: Transformer,
    text: Text,
    facts: Tensor,
    phrasing: str,
    answers: Tensor | None = None,
    names: Tensor | None = None,
) -> Answers:
    """Ask for facts (b, 2); with `answers` (n, r), score against those instead of the world's own; with `names`
    (b, s), ask it of those instead of the subjects.

    Greedy decoding returns the object exactly when each of its tokens is the arg max after the true ones before it,
    so one forward pass decides. Questions and their order depend on the facts alone. The model answers in evaluation
    mode and is left in the mode it was in.
    """
    device = model.embedding.weight.device
    probe = text.probe(facts, phrasing, torch.Generator().manual_seed(0), answers, names=names)
    exact, surprise = [], []
    with evaluation(model):
        for part in chunks(probe, CHUNK) if len(probe.subject) else ():
            tokens, where = part.documents.tokens.to(device), part.documents.answers.to(device)[:, 1:]
            target = tokens[:, 1:][where]
            logits = model(tokens[:, :-1], where).logits.float()
            row = where.nonzero()[:, 0]
            nll = torch.nn.functional.cross_entropy(logits, target, reduction="none")
            wrong = (logits.argmax(dim=-1) != target).float()
            zero = torch.zeros(len(tokens), device=device)
            exact.append(zero.index_add(0, row, wrong) == 0)
            surprise.append(zero.index_add(0, row, nll) / math.log(2))
    none = torch.zeros(0)
    return Answers(
        probe.subject,
        probe.relation,
        torch.cat([none.bool(), *(e.cpu() for e in exact)]),
        torch.cat([none, *(s.cpu() for s in surprise)]),
    )


@torch.no_grad()
def decode(
    model: Transformer,
    documents: Documents,
    num_tokens: Tensor,
    choose: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Answers to questions: tokens (b, o) and the log probability of the whole answer (b,).

    Token `step` of the answers is `choose(log_probability (b, v), step)` (b,): by default greedily. What the documents
    say after the question is not looked at. An answer has num_tokens (b,) tokens, or ends by END.
    """
    device = model.embedding.weight.device
    start = documents.answers.long().argmax(dim=1)
    longest = int(num_tokens.max())
    tokens = torch.nn.functional.pad(documents.tokens, (0, longest))
    column = torch.arange(tokens.shape[1])
    tokens = tokens.masked_fill(column >= start[:, None], PAD).to(device)
    row = torch.arange(len(tokens), device=device)
    answer = torch.zeros(len(tokens), longest, dtype=torch.long, device=device)
    confidence = torch.zeros(len(tokens), device=device)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=device)
    with evaluation(model):
        for step in range(longest):
            place = (start + step).to(device)
            where = torch.zeros_like(tokens, dtype=torch.bool)
            where[row, place - 1] = True
            log_probability = model(tokens, where).logits.float().log_softmax(dim=-1)
            chosen = log_probability.argmax(dim=-1) if choose is None else choose(log_probability, step)
            ended |= num_tokens.to(device) <= step
            answer[:, step] = chosen.masked_fill(ended, PAD)
            confidence += log_probability[row, chosen].masked_fill(ended, 0.0)
            tokens[row, place] = answer[:, step]
            ended |= chosen == END
    return answer.cpu(), confidence.cpu()


def decode_answers(model: Transformer, text: Text, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decoded answers (b, o) and their log probabilities (b,) to those of facts (b, 2) that training may ask for, which
    come third.
    """
    probe = text.probe(facts, "training", torch.Generator().manual_seed(0))
    found, log_probability = decode(model, probe.documents, answer_lengths(text.world)[probe.relation])
    return found, log_probability, torch.stack([probe.subject, probe.relation], dim=1)


def answer_lengths(world: World) -> Tensor:
    """Tokens (r,) of the longest object of each relation, its END among them."""
    return torch.stack([(table != PAD).sum(dim=1).max() for table in world.objects])


def gold(text: Text, facts: Tensor, width: int) -> Tensor:
    """Objects (b, width) of facts (b, 2)."""
    return text.objects[text.first_object[facts[:, 1]] + text.world.facts[facts[:, 0], facts[:, 1]]][:, :width]


def prior_bits(world: World, facts: Tensor) -> Tensor:
    """log2(1 / p_prior(object | relation)) of each fact (b, 2): what it would take to say it without knowing it."""
    tables = [world.prior(relation) for relation in range(len(world.relations))]
    objects = world.facts[facts[:, 0], facts[:, 1]]
    bits = torch.zeros(len(facts), dtype=torch.float64)
    for relation, table in enumerate(tables):
        mine = facts[:, 1] == relation
        bits[mine] = -table[objects[mine].long()].log2()
    return bits


def majority_share(world: World, facts: Tensor) -> float:
    """Recall of a model that knows the relations but no subject: it always gives the commonest object."""
    best = torch.tensor([int(world.prior(relation).argmax()) for relation in range(len(world.relations))])
    return float((world.facts[facts[:, 0], facts[:, 1]] == best[facts[:, 1]]).double().mean())


def shuffled(world: World, seed: int) -> Tensor:
    """The world's facts with the objects of each relation dealt anew among the subjects that have one: (n, r)."""
    generator = torch.Generator().manual_seed(seed)
    facts = world.facts.clone()
    for relation in range(facts.shape[1]):
        known = (facts[:, relation] >= 0).nonzero()[:, 0]
        facts[known, relation] = facts[known[torch.randperm(len(known), generator=generator)], relation]
    return facts


def sample_facts(world: World, limit: int) -> Tensor:
    """All facts, or a seeded sample of `limit` of them: (f, 2)."""
    facts = known_facts(world)
    if len(facts) <= limit:
        return facts
    return facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(world.facts.shape[0]))[:limit]]


def share(hits: Tensor) -> float | None:
    """The share of true ones among hits (b,); None where there are none to count."""
    return float(hits.double().mean()) if len(hits) else None
