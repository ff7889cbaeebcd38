"""Does a fact have one address? The overlap of the reads of two sentences, at two positions.

the birthplace of  Ada Ek Fu  is  Rome        at_name: the last token of the name, where the subject is known
                         ^    ^               at_answer: the token before the answer, where the relation is, too
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from memlayers.documents import Probe, chunks
from memlayers.facts.world import PAD
from memlayers.layers.feedforward import Reads
from memlayers.model import Transformer
from memlayers.recall.ask import CHUNK, evaluation
from memlayers.text import Text

MOST = 512  # most facts that are compared


def addresses(model: Transformer, text: Text, facts: Tensor) -> dict[str, Any] | None:
    """By layer and position, the overlap of reads of pairs of sentences; None for a model without tables, and for
    text without held-out phrasings.

    held_out: of a fact in a training and a held-out phrasing; relation: of two facts of a subject; subject: of facts of
    two subjects in one relation, the baseline. Each as shares of `slots` and of `weight`.
    """
    in_both = (text.layouts["held_out"].count > 0) & (text.layouts["training"].count > 0)
    facts = facts[in_both[facts[:, 1]]]
    if not model.tables() or not len(facts):
        return None
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(3))[:MOST]]
    known = (text.world.facts >= 0) & in_both
    other_relation, other_subject = facts.clone(), facts.clone()
    for row, (subject, relation) in enumerate(facts.tolist()):
        relations = known[subject].nonzero()[:, 0]
        other_relation[row, 1] = relations[
            (int((relations == relation).nonzero()) + 1) % len(relations)
        ]  # the same one if the subject has no other
        subjects = known[:, relation].nonzero()[:, 0]
        other_subject[row, 0] = subjects[(int((subjects == subject).nonzero()) + 1) % len(subjects)]
    first = reads_of(model, text, facts, "training")
    pairs = {
        "held_out": reads_of(model, text, facts, "held_out"),
        "relation": reads_of(model, text, other_relation, "training"),
        "subject": reads_of(model, text, other_subject, "training"),
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
    """By layer, the reads (b, r) of each fact at_name and at_answer. Templates depend on the facts alone."""
    probe = text.probe(facts, phrasing, torch.Generator().manual_seed(0))
    found: dict[str, dict[str, list[Reads]]] = {}
    with evaluation(model):
        for part in chunks(probe, CHUNK):
            row = torch.arange(len(part.subject))
            places = {"at_name": name_ends(part), "at_answer": part.documents.answers.long().argmax(dim=1) - 1}
            tokens = part.documents.tokens.to(model.embedding.weight.device)
            for layer, reads in model(tokens, torch.zeros_like(tokens, dtype=torch.bool)).reads.items():
                for place, where in places.items():
                    own = Reads(*(table.cpu()[row, where] for table in reads))
                    found.setdefault(layer, {}).setdefault(place, []).append(own)
    return {
        layer: {place: Reads(*map(torch.cat, zip(*parts, strict=True))) for place, parts in places.items()}
        for layer, places in found.items()
    }


def name_ends(probe: Probe) -> Tensor:
    """Index (b,) of the last token of the subject's name in each question, behind its context."""
    ends, starts = [], probe.documents.context.sum(dim=1).tolist()
    for row, name, start in zip(probe.documents.tokens.tolist(), probe.name.tolist(), starts, strict=True):
        name = [token for token in name if token != PAD]
        ends.append(next(end for end in range(start + len(name), len(row)) if row[end - len(name) : end] == name) - 1)
    return torch.tensor(ends)


def shared(left: Reads, right: Reads) -> dict[str, float]:
    """The overlap of reads (b, r), as a mean over b: the share of distinct slots, and of weight, that both have."""
    slots, weight = [], []
    for ours, theirs in zip(by_slot(left), by_slot(right), strict=True):
        both = ours.keys() & theirs.keys()
        slots.append(len(both) / max(len(ours), len(theirs)))
        weight.append(sum(min(ours[slot], theirs[slot]) for slot in both))
    return {"slots": sum(slots) / len(slots), "weight": sum(weight) / len(weight)}


def by_slot(reads: Reads) -> list[Counter[int]]:
    """For each row of reads (b, r), the share of its weight that each slot has."""
    rows = []
    for slots, weights in zip(reads.slots.tolist(), reads.weights.double().abs().tolist(), strict=True):
        total: Counter[int] = Counter()
        for slot, weight in zip(slots, weights, strict=True):
            total[slot] += weight / max(sum(weights), 1e-30)
        rows.append(total)
    return rows
