"""Does a fact have one address? What the reads of two sentences have in common, where a memory could answer.

the birthplace of  Ada Ek Fu  is  Rome        at the last token of the name: the subject is known
                         ^    ^               before the answer: the relation, too
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from memlayers.documents import Probe
from memlayers.facts.world import PAD
from memlayers.layers.feedforward import Reads
from memlayers.model import Transformer
from memlayers.recall.ask import evaluation
from memlayers.text import Text

MOST = 512  # facts that are compared


def addresses(model: Transformer, text: Text, facts: Tensor) -> dict[str, Any] | None:
    """By layer and place in the sentence, what reads share; None for a model that reads nothing, or terse text.

    held_out: of one fact in a training and a held-out phrasing; relation: of two facts of a subject; subject: of two
    subjects, in one relation: what is shared without knowing anything. Each as shares of `slots` and of `weight`.
    """
    if not model.tables() or not int(text.layouts["held_out"].count.sum()):
        return None
    facts = facts[text.layouts["held_out"].count[facts[:, 1]] > 0]
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(3))[:MOST]]
    known = text.world.facts >= 0
    again, others = facts.clone(), facts.clone()
    for row, (subject, relation) in enumerate(facts.tolist()):
        own = known[subject].nonzero()[:, 0]
        again[row, 1] = own[(int((own == relation).nonzero()) + 1) % len(own)]  # itself, where it has no other
        alike = known[:, relation].nonzero()[:, 0]
        others[row, 0] = alike[(int((alike == subject).nonzero()) + 1) % len(alike)]
    first = reads_of(model, text, facts, "training")
    pairs = {
        "held_out": reads_of(model, text, facts, "held_out"),
        "relation": reads_of(model, text, again, "training"),
        "subject": reads_of(model, text, others, "training"),
    }
    return {
        layer: {
            place: {name: shared(first[layer][place], reads[layer][place]) for name, reads in pairs.items()}
            for place in first[layer]
        }
        for layer in first
    } or None


@torch.no_grad()
def reads_of(model: Transformer, text: Text, facts: Tensor, phrasing: str) -> dict[str, dict[str, Reads]]:
    """Slots and weights (b, r) of each fact, by layer, at_name and at_answer. Templates follow from the facts alone."""
    probe = text.probe(facts, phrasing, torch.Generator().manual_seed(0))
    row = torch.arange(len(probe.subject))
    places = {"at_name": name_ends(probe), "at_answer": probe.documents.answers.long().argmax(dim=1) - 1}
    tokens = probe.documents.tokens.to(model.embedding.weight.device)
    with evaluation(model):
        made = model(tokens, torch.zeros_like(tokens, dtype=torch.bool)).reads
    return {
        layer: {place: Reads(*(table.cpu()[row, where] for table in reads)) for place, where in places.items()}
        for layer, reads in made.items()
    }


def name_ends(probe: Probe) -> Tensor:
    """Index (b,) of the last token of the subject's name in each question, behind its context."""
    ends, starts = [], probe.documents.context.sum(dim=1).tolist()
    for row, name, start in zip(probe.documents.tokens.tolist(), probe.name.tolist(), starts, strict=True):
        name = [token for token in name if token != PAD]
        ends.append(next(end for end in range(start + len(name), len(row)) if row[end - len(name) : end] == name) - 1)
    return torch.tensor(ends)


def shared(left: Reads, right: Reads) -> dict[str, float]:
    """Mean over b pairs of reads (b, r): the share of distinct slots, and of weight, that both have."""
    slots, weight = [], []
    for ours, theirs in zip(by_slot(left), by_slot(right), strict=True):
        both = ours.keys() & theirs.keys()
        slots.append(len(both) / max(len(ours), len(theirs)))
        weight.append(sum(min(ours[slot], theirs[slot]) for slot in both))
    return {"slots": sum(slots) / len(slots), "weight": sum(weight) / len(weight)}


def by_slot(reads: Reads) -> list[Counter[int]]:
    """Of each row, the weight of each slot, as a share of all weight."""
    rows = []
    for slots, weights in zip(reads.slots.tolist(), reads.weights.double().abs().tolist(), strict=True):
        total: Counter[int] = Counter()
        for slot, weight in zip(slots, weights, strict=True):
            total[slot] += weight / max(sum(weights), 1e-30)
        rows.append(total)
    return rows
