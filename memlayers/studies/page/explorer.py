"""The data of a page's slot explorer, computed from a trained model; its script draws them.

"subjects", "relations"    the names; facts refer to them by index
"facts"                    for each: question, answers with and without the slots that it reads, these slots and readers
"layers"                   for each place: half scores of all rows and columns in 8 bits, how many facts read each slot
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
MOST_BYTES = 1_200_000  # of scores and counts of readers; larger tables show fewer facts
NEIGHBOURS = 3  # for each subject drawn, the subjects whose reads overlap most


def explored(model: Trained, run: str, most: int = MOST_FACTS) -> dict[str, Any]:
    """The explorer's data for at most `most` facts. Raises ValueError, in one line, for a model without product keys,
    or with too many.
    """
    others = all_reads(model)
    places = {place: lookup_at(model, place) for place in others.reads}
    lookups = {place: lookup for place, lookup in places.items() if lookup is not None}
    if not lookups:
        raise ValueError(f"arm {model.config.arm} has no product keys; accepted: a run of memory or another that has")
    world, names = model.text.world, model.text.world.names()
    sizes = {place: lookup.keys.shape[-2] for place, lookup in lookups.items()}
    left = MOST_BYTES - sum(2 * n**2 for n in sizes.values())
    fits = left // sum(2 * sizes[place] * lookup.heads for place, lookup in lookups.items())
    if not (count := min(most, fits) // len(world.relations)):
        many = f"num_keys={max(sizes.values())} and {len(world.relations)} relations"
        raise ValueError(f"{many}: too many for a page; accepted: a run with fewer")
    subjects = chosen(others, count)
    facts: list[Fact] = [
        (subject, relation)
        for subject in subjects
        for relation in range(len(world.relations))
        if world.is_told[subject, relation] and model.text.layouts["training"].count[relation]
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
            | quantised(torch.stack([by_place[place] for by_place in scores]))
            for place, lookup in lookups.items()
        ],
    }


def chosen(others: AllReads, count: int) -> list[int]:
    """Subjects, sorted: random ones, each with those whose reads overlap most with the reads of its first fact."""
    first = {int(subject): row for row, (subject, _) in reversed(list(enumerate(others.facts.tolist())))}
    rows, subjects = list(first.values()), set[int]()
    for index in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist():
        shared = torch.stack([share_of(*table, rows[index]) for table in others.reads.values()]).sum(dim=0)
        near = dict.fromkeys(others.facts[shared.argsort(descending=True), 0].tolist())
        for subject in [int(others.facts[rows[index], 0]), *near][
            : NEIGHBOURS + 2
        ]:  # + 2: itself, which is nearest, twice
            if len(subjects) == count:
                return sorted(subjects)
            subjects.add(subject)
    return sorted(subjects)


def share_of(slots: Tensor, weights: Tensor, row: int) -> Tensor:
    """For reads (f, r), the weight (f,) that each row has on slots that row `row` reads."""
    return (weights.abs() * torch.isin(slots, slots[row])).sum(dim=1)


def fact_of(model: Trained, changed: Trained, fact: Fact, subjects: list[int], others: AllReads) -> dict[str, Any]:
    """The data of one question. `changed`, a copy of the model, is changed and restored."""
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
            [slot.place, slot.slot, rounded(slot.weight), slot.heads, slot.readers, slot.known_to]
            for slot in trace(model, subject, relation, others=others)
        ],
    }


def answers(reply: Reply) -> list[tuple[str, float]]:
    return [(name, rounded(p)) for name, p in zip(reply.objects, reply.probabilities, strict=True)]


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def readers(others: AllReads, place: str, slots: int) -> str:
    """How many facts read each slot at the token that predicts the answer: 16 bits each, little-endian, in base 64."""
    table = others.reads[place]
    counts = torch.zeros(slots)
    for part in table.slots:
        counts[part.unique()] += 1
    return encoded(counts.clamp(max=2**16 - 1).numpy().astype("<u2"))


def quantised(scores: Tensor) -> dict[str, Any]:
    """scores (f, h, two, n) as bytes in base 64: the score is low + step * byte."""
    low, high = float(scores.min()), float(scores.max())
    step = (high - low) / 255 or 1.0
    return {"low": low, "step": step, "scores": encoded(((scores - low) / step).round().byte().numpy())}


def encoded(values: numpy.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def recalled(run: str) -> float | None:
    """The recall in the record beside the model, or None."""
    record = read_record(Path(run).with_suffix(".json"))
    return record["recall"]["exact"] if record and record.get("recall") else None
