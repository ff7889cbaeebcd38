"""Tracing single lookups: which slots a question reads, which other facts read them, and editing what they hold.

All functions but `forget` and `write` leave the Trained model unchanged; pass these two a copy (`copied`).
"""

import copy
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from memlayers.facts.world import PAD, known_facts
from memlayers.layers.feedforward import Reads
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.recall.addresses import reads_of
from memlayers.recall.ask import ask, evaluation
from memlayers.recall.usage import layer_at, pool_at
from memlayers.trained import Trained

Fact = tuple[int, int]  # subject, relation


@dataclass(frozen=True)
class SlotRead:
    """One slot that a question reads where its answer begins."""

    place: str  # of the layer, such as 0.ffn
    slot: int
    weight: float  # the sum over heads that read it
    heads: tuple[int, ...]
    readers: int  # other facts that read it
    known_to: tuple[str, ...]  # those that read it with most weight


class AllReads(NamedTuple):
    """What every fact of a world reads where its answer begins, but for those that no training sentence asks."""

    facts: Tensor  # (f, 2)
    reads: dict[str, Reads]  # by the layer's place, slots and weights (f, r)


def slots_of(model: Trained, fact: Fact, phrasing: str = "training") -> dict[str, Reads]:
    """By place of the layer, slots and weights (r,) before the answer. Raises ValueError for a model without tables."""
    question = model.question(fact, phrasing)[None].to(model.device)
    with torch.no_grad(), evaluation(model.model):
        by_place = model.model(question, torch.zeros_like(question, dtype=torch.bool)).reads
    if not by_place:
        raise ValueError(f"arm {model.config.arm} reads no table; accepted: a run of memory, ngram and the like")
    return {place: Reads(reads.slots[0, -1].cpu(), reads.weights[0, -1].cpu()) for place, reads in by_place.items()}


def all_reads(model: Trained) -> AllReads:
    """The reads of all facts of the world."""
    facts = known_facts(model.text.world)
    facts = facts[model.text.layouts["training"].count[facts[:, 1]] > 0]
    by_place = reads_of(model.model, model.text, facts, "training")
    return AllReads(facts, {place: reads["at_answer"] for place, reads in by_place.items()})


def trace(
    model: Trained,
    subject: str,
    relation: str,
    phrasing: str = "training",
    most: int = 3,
    others: AllReads | None = None,  # of this model, for callers that trace many facts
) -> list[SlotRead]:
    """All slots that a question reads, by falling weight."""
    fact, world = model.fact(subject, relation), model.text.world
    own_reads = slots_of(model, fact, phrasing)
    facts, reads_of_all = others or all_reads(model)
    is_it = (facts == torch.tensor(fact)).all(dim=1)
    names, traced = world.names(), []
    for place, reads in own_reads.items():
        heads = heads_at(model, place)
        others_reads = reads_of_all[place]
        weights: Counter[int] = Counter()
        readers: dict[int, list[int]] = {}
        for read, (slot, weight) in enumerate(zip(reads.slots.tolist(), reads.weights.tolist(), strict=True)):
            weights[slot] += weight
            readers.setdefault(slot, []).append(read * heads // len(reads.slots))
        for slot, weight in weights.items():
            share = (others_reads.weights.abs() * (others_reads.slots == slot)).sum(dim=1).masked_fill(is_it, 0.0)
            best = [index for index in share.argsort(descending=True)[:most].tolist() if share[index] > 0]
            known_to = tuple(f"{names[facts[index, 0]]} {world.relations[facts[index, 1]]}" for index in best)
            by_heads, count = tuple(sorted(set(readers[slot]))), int((share > 0).sum())
            traced.append(SlotRead(place, slot, weight, by_heads, count, known_to))
    return sorted(traced, key=lambda read: -abs(read.weight))


def lookup_at(model: Trained, place: str) -> ProductKeyLookup | None:
    """The product-key lookup of the layer at a place, or None."""
    return next((part for part in layer_at(model.model, place).modules() if isinstance(part, ProductKeyLookup)), None)


def heads_at(model: Trained, place: str) -> int:
    """The number of heads of the lookup at a place; 1 for other addresses."""
    return getattr(lookup_at(model, place), "heads", 1)


@torch.no_grad()
def scores_of(model: Trained, fact: Fact, phrasing: str = "training") -> dict[str, Tensor]:
    """By place of each layer with product keys, half scores (h, two, n) at the token that predicts the answer."""
    by_lookup: dict[ProductKeyLookup, list[Tensor]] = {}  # one for each pass over the blocks

    def keep(lookup: ProductKeyLookup, x: tuple[Tensor, ...]) -> None:
        scores = rearrange(lookup.scores(x[0])[:, :, -1], "two h n -> h two n").float().cpu()
        by_lookup.setdefault(lookup, []).append(scores)

    at = {place: lookup_at(model, place) for place in slots_of(model, fact, phrasing)}
    with ExitStack() as hooks:
        for lookup in {lookup for lookup in at.values() if lookup is not None}:
            hooks.enter_context(lookup.register_forward_pre_hook(keep))
        slots_of(model, fact, phrasing)
    return {place: by_lookup[lookup].pop(0) for place, lookup in at.items() if lookup is not None}


def copied(model: Trained) -> Trained:
    """A copy of the model whose parameters may be changed."""
    return Trained(model.config, model.text, copy.deepcopy(model.model))


@torch.no_grad()
def forget(model: Trained, fact: Fact) -> int:
    """Zero the slots that a question reads at the token that predicts the answer; returns how many."""
    read = {place: reads.slots.unique() for place, reads in slots_of(model, fact).items()}
    for place, slots in read.items():
        pool_at(model.model, place).values[slots.to(model.device)] = 0
    return sum(map(len, read.values()))


def write(model: Trained, fact: Fact, answer: int, steps: int = 60, lr: float = 0.1) -> float:
    """Edit the values that a question and its answer read until the answer is the object of index `answer`; returns its
    probability. Gradient steps on these rows alone: `lr` is the norm of the largest change of a row in the first step,
    and each step is 15% longer than the last.
    """
    question = model.question(fact)
    padded = model.text.objects[int(model.text.first_object[fact[1]]) + answer]
    target = padded[padded != PAD].to(model.device)
    tokens = torch.cat([question.to(model.device), target])[None, :-1]
    where = torch.zeros_like(tokens, dtype=torch.bool)
    where[:, len(question) - 1 :] = True
    with evaluation(model.model):
        for step in range(steps):
            out = model.model(tokens, where)
            loss = torch.nn.functional.cross_entropy(out.logits.float(), target)
            if loss < 0.05:
                break
            read: dict[Tensor, Tensor] = {}  # rows by table, which several layers may read
            for place, reads in out.reads.items():
                table, slots = pool_at(model.model, place).values, reads.slots[0, len(question) - 1 :].flatten()
                read[table] = torch.cat([read.get(table, slots[:0]), slots]).unique()
            grads = torch.autograd.grad(loss, list(read))
            for (values, rows), grad in zip(read.items(), grads, strict=True):
                row_grads = (grad.to_dense() if grad.is_sparse else grad)[rows]
                values.detach()[rows] -= lr * 1.15**step * row_grads / row_grads.norm(dim=1).max().clamp(min=1e-12)
    return float(model.log_probabilities(question, fact[1])[answer].exp())


def collateral(before: Tensor, changed: Trained, facts: Tensor, fact: Fact) -> tuple[bool, float]:
    """The effect of a change that is meant for one fact: whether its answer is lost, and the share of the other right
    answers that are. `before` (f,) says which of the facts (f, 2) were right before the change.
    """
    lost = before & ~ask(changed.model, changed.text, facts, "training").exact
    is_target = (facts == torch.tensor(fact)).all(dim=1)
    return bool(lost[is_target].any()), float((lost & ~is_target).sum()) / max(1, int((before & ~is_target).sum()))


def measured(model: Trained, count: int, others: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Forget and, separately, edit `count` known facts, each in a fresh copy: how often that works, and the share of up
    to `others` other known facts that is lost.
    """
    facts = known_facts(model.text.world)
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))[:others]]
    before = ask(model.model, model.text, facts, "training").exact
    chosen: list[Fact] = [(subject, relation) for subject, relation in facts[before][:count].tolist()]
    forgotten, lost, written, lost_by_writing, slots = 0, 0.0, 0, 0.0, 0
    for fact in chosen:
        changed = copied(model)
        slots += forget(changed, fact)
        gone, share = collateral(before, changed, facts, fact)
        forgotten, lost = forgotten + gone, lost + share
        changed = copied(model)
        another = (int(model.text.world.facts[fact]) + 1) % len(model.objects[fact[1]])
        written += write(changed, fact, another) > 0.5
        lost_by_writing += collateral(before, changed, facts, fact)[1]
    n = max(1, len(chosen))
    return {
        "facts": len(chosen),
        "others": int(before.sum()),
        "slots_a_fact": slots / n,
        "forgotten": forgotten / n,
        "lost_by_forgetting": lost / n,
        "edited": written / n,
        "lost_by_editing": lost_by_writing / n,
    }
