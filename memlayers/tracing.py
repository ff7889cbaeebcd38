"""Looking into one lookup: which slots a question reads, who else reads them, and what they hold.

Pure functions of a Trained model, but for `forget` and `write`, which change its tables: hand them a copy (`copied`).
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

    place: str  # of the layer: 0.ffn
    slot: int
    weight: float  # the sum over heads that read it
    heads: tuple[int, ...]
    readers: int  # other facts that read it
    known_to: tuple[str, ...]  # some of them, the heaviest readers first


class AllReads(NamedTuple):
    """What every fact of a world reads where its answer begins."""

    facts: Tensor  # (f, 2)
    reads: dict[str, Reads]  # by the layer's place, slots and weights (f, r)


def slots_of(model: Trained, fact: Fact, phrasing: str = "training") -> dict[str, Reads]:
    """By the layer's place, slots and weights (r,) at the token that answers. Raises ValueError for a model without."""
    question = model.question(fact, phrasing)[None].to(model.device)
    with torch.no_grad(), evaluation(model.model):
        made = model.model(question, torch.zeros_like(question, dtype=torch.bool)).reads
    if not made:
        raise ValueError(f"arm {model.config.arm} reads no table; accepted: a run of memory, ngram and the like")
    return {place: Reads(reads.slots[0, -1].cpu(), reads.weights[0, -1].cpu()) for place, reads in made.items()}


def all_reads(model: Trained) -> AllReads:
    facts = known_facts(model.text.world)
    found = reads_of(model.model, model.text, facts, "training")
    return AllReads(facts, {place: reads["at_answer"] for place, reads in found.items()})


def trace(
    model: Trained,
    subject: str,
    relation: str,
    phrasing: str = "training",
    most: int = 3,
    others: AllReads | None = None,  # of this model, for callers that trace many facts
) -> list[SlotRead]:
    """Every slot that a question reads, the heaviest first."""
    fact, world = model.fact(subject, relation), model.text.world
    own = slots_of(model, fact, phrasing)
    facts, reads_of_all = others or all_reads(model)
    is_it = (facts == torch.tensor(fact)).all(dim=1)
    names, found = world.names(), []
    for place, reads in own.items():
        heads = heads_at(model, place)
        theirs = reads_of_all[place]
        weights: Counter[int] = Counter()
        readers: dict[int, list[int]] = {}
        for read, (slot, weight) in enumerate(zip(reads.slots.tolist(), reads.weights.tolist(), strict=True)):
            weights[slot] += weight
            readers.setdefault(slot, []).append(read * heads // len(reads.slots))
        for slot, weight in weights.items():
            share = (theirs.weights.abs() * (theirs.slots == slot)).sum(dim=1).masked_fill(is_it, 0.0)
            best = [index for index in share.argsort(descending=True)[:most].tolist() if share[index] > 0]
            told = tuple(f"{names[facts[index, 0]]} {world.relations[facts[index, 1]]}" for index in best)
            found.append(SlotRead(place, slot, weight, tuple(sorted(set(readers[slot]))), int((share > 0).sum()), told))
    return sorted(found, key=lambda one: -abs(one.weight))


def lookup_at(model: Trained, place: str) -> ProductKeyLookup | None:
    """The lookup of a place; None where addresses are not product keys."""
    return next((one for one in layer_at(model.model, place).modules() if isinstance(one, ProductKeyLookup)), None)


def heads_at(model: Trained, place: str) -> int:
    """Of the lookup at a place; 1 where addresses have none."""
    lookup = lookup_at(model, place)
    return 1 if lookup is None else lookup.heads


@torch.no_grad()
def scores_of(model: Trained, fact: Fact, phrasing: str = "training") -> dict[str, Tensor]:
    """By the place of each layer with product keys, half scores (h, two, n) at the token that answers: what all rows
    and all columns of the n * n slots score.
    """
    found: dict[ProductKeyLookup, list[Tensor]] = {}  # of each pass

    def keep(lookup: ProductKeyLookup, x: tuple[Tensor, ...]) -> None:
        scores = rearrange(lookup.scores(x[0])[:, :, -1], "two h n -> h two n").float().cpu()
        found.setdefault(lookup, []).append(scores)

    at = {place: lookup_at(model, place) for place in slots_of(model, fact, phrasing)}
    with ExitStack() as hooks:
        for lookup in {one for one in at.values() if one is not None}:
            hooks.enter_context(lookup.register_forward_pre_hook(keep))
        slots_of(model, fact, phrasing)
    return {place: found[lookup].pop(0) for place, lookup in at.items() if lookup is not None}


def copied(model: Trained) -> Trained:
    """The same, with tables that may be written."""
    return Trained(model.config, model.text, copy.deepcopy(model.model))


@torch.no_grad()
def forget(model: Trained, fact: Fact) -> int:
    """Zero the slots that a question reads where its answer begins; returns how many."""
    read = {place: reads.slots.unique() for place, reads in slots_of(model, fact).items()}
    for place, slots in read.items():
        pool_at(model.model, place).values[slots.to(model.device)] = 0
    return sum(map(len, read.values()))


def write(model: Trained, fact: Fact, answer: int, steps: int = 60, lr: float = 0.1) -> float:
    """Edit the values that a question and its answer read, until that is another object (its row); returns its
    probability. Gradient steps on these rows alone, each step a little longer than the one before: `lr` is how far the
    first moves the row that it moves most. All else stays as it is.
    """
    question = model.question(fact)
    told = model.text.objects[int(model.text.first_object[fact[1]]) + answer]
    target = told[told != PAD].to(model.device)
    tokens = torch.cat([question.to(model.device), target])[None, :-1]
    where = torch.zeros_like(tokens, dtype=torch.bool)
    where[:, len(question) - 1 :] = True
    with evaluation(model.model):
        for step in range(steps):
            out = model.model(tokens, where)
            loss = torch.nn.functional.cross_entropy(out.logits.float(), target)
            if loss < 0.05:
                break
            read = {place: reads.slots[0, len(question) - 1 :].unique() for place, reads in out.reads.items()}
            tables = list({place: pool_at(model.model, place).values for place in read}.items())
            grads = torch.autograd.grad(loss, [values for _, values in tables])
            with torch.no_grad():
                for (place, values), grad in zip(tables, grads, strict=True):
                    own = (grad.to_dense() if grad.is_sparse else grad)[read[place]]
                    values[read[place]] -= lr * 1.15**step * own / own.norm(dim=1).max().clamp(min=1e-12)
    return float(model.log_probabilities(question, fact[1])[answer].exp())


def collateral(before: Tensor, changed: Trained, facts: Tensor, fact: Fact) -> tuple[bool, float]:
    """Of a change meant for one fact, with the answers `before` it (f,) to facts (f, 2), right or not: whether the
    answer to that one is lost, and the share of the other right ones that are.
    """
    lost = before & ~ask(changed.model, changed.text, facts, "training").exact
    mine = (facts == torch.tensor(fact)).all(dim=1)
    return bool(lost[mine].any()), float((lost & ~mine).sum()) / max(1, int((before & ~mine).sum()))


def measured(model: Trained, count: int, others: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Facts that the model knows, one after the other forgotten and, from the same start, edited: how often that
    works, and which share of `others` known facts is lost by it.
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
