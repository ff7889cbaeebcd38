"""What the slot explorer of a page shows of a trained model, as data for its script: computed here, drawn there.

"subjects", "relations"    every subject with every relation is a fact, but for those that the world lacks
"facts"                    question, answers with and without the slots it reads, and these slots with their readers
"layers"                   by place: half scores of all rows and columns in 8 bits, and how many facts read each slot
"""

import base64
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from memlayers.tracing import AllReads, Fact, all_reads, copied, forget, lookup_at, scores_of, slots_of, trace
from memlayers.trained import Reply, Trained
from memlayers.training.record import read_record

MOST_FACTS = 200
MOST_BYTES = 1_200_000  # of scores and counts of readers; larger tables are shown for fewer facts
NEIGHBOURS = 3  # of each subject drawn: those that share most of what it reads


def explored(model: Trained, run: str, most: int = MOST_FACTS) -> dict[str, Any]:
    """Of at most so many facts. Raises ValueError, in one line, for a model without product keys, or with too many."""
    others = all_reads(model)
    places = {place: lookup_at(model, place) for place in others.reads}
    lookups = {place: lookup for place, lookup in places.items() if lookup is not None}
    if not lookups:
        raise ValueError(
            f"arm {model.config.arm} has no product keys; accepted: a run of memory, memory_plus and the like"
        )
    world, names = model.text.world, model.text.world.names()
    sizes = {place: lookup.keys.shape[-2] for place, lookup in lookups.items()}
    left = MOST_BYTES - sum(2 * n**2 for n in sizes.values())
    fits = left // sum(2 * sizes[place] * lookup.heads for place, lookup in lookups.items())
    if fits < len(world.relations):
        raise ValueError(f"num_keys={max(sizes.values())}: too many slots for a page; accepted: a run with fewer")
    subjects = chosen(others, min(most, fits) // len(world.relations))
    facts: list[Fact] = [
        (subject, relation)
        for subject in subjects
        for relation in range(len(world.relations))
        if world.facts[subject, relation] >= 0
    ]
    scores = [scores_of(model, fact) for fact in facts]
    changed = copied(model)
    return {
        "run": {"name": Path(run).stem, "arm": model.config.arm, "world": model.config.world.name},
        "recall": recalled(run),
        "subjects": [names[subject] for subject in subjects],
        "relations": list(world.relations),
        "known": len(others.facts),
        "facts": [fact_of(model, changed, fact, subjects, others) for fact in facts],
        "layers": [
            {
                "place": place,
                "n": sizes[place],
                "heads": lookup.heads,
                "topk": lookup.topk,
                "readers": readers(others, place, sizes[place] ** 2),
            }
            | quantised(torch.stack([one[place] for one in scores]))
            for place, lookup in lookups.items()
        ],
    }


def chosen(others: AllReads, count: int) -> list[int]:
    """Subjects, in their order: some drawn by chance, each with those that share most of what its first fact reads."""
    first = {int(subject): row for row, (subject, _) in reversed(list(enumerate(others.facts.tolist())))}
    rows, found = list(first.values()), set[int]()
    for index in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist():
        shared = torch.stack([share_of(*table, rows[index]) for table in others.reads.values()]).sum(dim=0)
        near = dict.fromkeys(others.facts[shared.argsort(descending=True), 0].tolist())
        for subject in [int(others.facts[rows[index], 0]), *near][: NEIGHBOURS + 2]:  # it is nearest to itself
            if len(found) == count:
                return sorted(found)
            found.add(subject)
    return sorted(found)


def share_of(slots: Tensor, weights: Tensor, row: int) -> Tensor:
    """Of slots and weights (f, r), the weight (f,) that each row gives to slots of one of them."""
    return (weights.abs() * torch.isin(slots, slots[row])).sum(dim=1)


def fact_of(model: Trained, changed: Trained, fact: Fact, subjects: list[int], others: AllReads) -> dict[str, Any]:
    """One question; `changed` is a copy of the model, and one again afterwards."""
    subject, relation = model.text.world.names()[fact[0]], model.text.world.relations[fact[1]]
    reply = model.ask(subject, relation)
    forget(changed, fact)
    without = changed.ask(subject, relation)
    changed.model.load_state_dict(model.model.state_dict())
    read = {
        place: list(zip(reads.slots.tolist(), map(rounded, reads.weights.tolist()), strict=True))
        for place, reads in slots_of(model, fact).items()
    }
    return {
        "subject": subjects.index(fact[0]),
        "relation": fact[1],
        "tokens": [model.text.vocabulary[token] for token in model.question(fact).tolist()],
        "truth": reply.truth,
        "answers": answers(reply),
        "without": answers(without),
        "reads": read,
        "slots": [
            [one.place, one.slot, rounded(one.weight), one.heads, one.readers, one.known_to]
            for one in trace(model, subject, relation, others=others)
        ],
    }


def answers(reply: Reply) -> list[tuple[str, float]]:
    return [(one, rounded(p)) for one, p in zip(reply.objects, reply.probabilities, strict=True)]


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def readers(others: AllReads, place: str, slots: int) -> str:
    """How many facts read each slot where their answer begins: 16 bits each, little-endian, in base 64."""
    table = others.reads[place]
    once = torch.zeros(slots)
    for part in table.slots:
        once[part.unique()] += 1
    return encoded(once.clamp(max=2**16 - 1).numpy().astype("<u2"))


def quantised(scores: Tensor) -> dict[str, Any]:
    """scores (f, h, two, n) as bytes in base 64: the score is low + step * byte."""
    low, high = float(scores.min()), float(scores.max())
    step = (high - low) / 255 or 1.0
    return {"low": low, "step": step, "scores": encoded(((scores - low) / step).round().byte().numpy())}


def encoded(values: numpy.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def recalled(run: str) -> float | None:
    """Of the record beside the model, where there is one."""
    record = read_record(Path(run).with_suffix(".json"))
    return record["recall"]["exact"] if record and record.get("recall") else None
