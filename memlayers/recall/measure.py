"""The recall read-outs of one trained model, as they stand in its record."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from memlayers.model import Transformer
from memlayers.recall.addresses import addresses
from memlayers.recall.ask import Answers, ask, gold, majority_share, prior_bits, said, sample_facts, shuffled
from memlayers.recall.context import in_context
from memlayers.recall.corpora import bits_per_byte
from memlayers.recall.decodable import decodable
from memlayers.recall.usage import tables
from memlayers.recall.votes import votes
from memlayers.text import Text

BUCKETS = (1, 4, 16, 64, 256, 1024)  # lower ends, in exposures
MAX_FACTS = 200_000  # asked at the end of a run; a seeded sample of larger worlds
MAX_CONFIDENCE = 2_000  # known and unknown subjects whose confidence is compared


def measure(model: Transformer, text: Text, documents: int) -> dict[str, Any]:
    """All read-outs after training on a number of documents.

    exact, held_out: share of facts whose whole object is right, asked as in training and as never in training.
    by_view: the same in each kind of view of the subjects; null in a world that has none.
    questions, held_out_questions: the same for questions, as training asks them and as it does not, about subjects of
    which it asks none; null where it asks none at all.
    bits: sum over the facts of log2(1 / prior) minus the model's surprise, scaled to the whole world where a sample
    was asked. A model that answers by frequency scores 0; one that is confidently wrong scores below.
    """
    world = text.world
    facts = sample_facts(world, MAX_FACTS)
    scale = world.num_facts / len(facts)
    trained = ask(model, text, facts, "training")
    others = phrasings(text, facts)
    by_phrasing = {kind: ask(model, text, which, kind).exact for kind, which in others.items()}
    control = ask(model, text, facts, "training", shuffled(world, seed=1))
    asked = torch.stack([trained.subject, trained.relation], dim=1)
    prior = prior_bits(world, asked)
    exposures = text.exposures_per_document[asked[:, 0], asked[:, 1]] * documents
    stored = scale * float(prior.sum() - trained.surprise.double().sum())
    return {
        "num_facts": world.num_facts,
        "asked": len(asked),
        "exact": mean(trained.exact),
        **{kind: mean(exact) if len(exact) else None for kind, exact in by_phrasing.items()},
        "shuffled": mean(control.exact),
        "floor": majority_share(world, asked),
        "stored_bits": stored,
        "world_bits": scale * float(prior.sum()),
        "by_relation": {
            name: mean(trained.exact[trained.relation == index])
            for index, name in enumerate(world.relations)
            if (trained.relation == index).any()
        },
        "by_view": {kind: mean(ask(model, text, facts, kind).exact) for kind in views(text)} or None,
        "votes": votes(model, text, facts),
        "context": in_context(text, {"training": facts, **others}),
        "by_exposures": by_exposures(trained, exposures),
        "unknown": unknown_subjects(model, text, facts),
        "tables": tables(model, text, facts),
        "addresses": addresses(model, text, facts),
        "decodable": decodable(model, text),
        "bits_per_byte": bits_per_byte(model, text),
    }


def phrasings(text: Text, facts: Tensor) -> dict[str, Tensor]:
    """What is asked in each phrasing that training never uses: questions only where training asks of other subjects."""
    asked = text.telling.is_asked
    others = facts[~asked[facts[:, 0]]] if asked.any() else facts[:0]
    return {"held_out": facts, "questions": others, "held_out_questions": others}


def views(text: Text) -> list[str]:
    """The kinds of view of a world's subjects, for those who ask in each."""
    return [kind for kind in text.world.views if kind not in ("training", "held_out")]


def mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def by_exposures(answers: Answers, exposures: Tensor) -> dict[str, float]:
    """Recall in buckets of expected exposures: {"16-63": 0.41, ...}."""
    edges = (0, *BUCKETS, math.inf)
    found = {}
    for low, high in itertools.pairwise(edges):
        inside = (exposures >= low) & (exposures < high)
        if inside.any():
            found[f"{low}+" if high == math.inf else f"{low}-{int(high) - 1}"] = mean(answers.exact[inside])
    return found


def unknown_subjects(model: Transformer, text: Text, facts: Tensor) -> dict[str, float | None]:
    """Does confidence tell known subjects from unknown ones? Confidence is the probability of the decoded object.

    auroc: probability that a known subject's answer is held with more confidence than an unknown one's.
    recall_at_1, recall_at_5: share of facts that are right and above the confidence that lets 1% (5%) of the
    questions about unknown subjects through. Null where the world has no unknown subjects.
    """
    world = text.world
    if not len(world.unknown):
        return {"auroc": None, "recall_at_1": None, "recall_at_5": None}
    generator = torch.Generator().manual_seed(2)
    known = facts[torch.randperm(len(facts), generator=generator)[:MAX_CONFIDENCE]]
    strangers = torch.randint(len(world.unknown), (len(known),), generator=generator) + len(world.subjects)
    stranger_facts = torch.stack([strangers, known[:, 1]], dim=1)
    found, of_known, asked = said(model, text, known)
    _, of_unknown, _ = said(model, text, stranger_facts)
    right = (found == gold(text, asked, found.shape[1])).all(dim=1)

    def recall_at(share: float) -> float:
        threshold = of_unknown.sort(descending=True).values[int(share * len(of_unknown))]
        return mean(right & (of_known > threshold))

    return {"auroc": auroc(of_known, of_unknown), "recall_at_1": recall_at(0.01), "recall_at_5": recall_at(0.05)}


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive exceeds a negative, ties counting half (Mann-Whitney), by sorting."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, right=False)
    up_to = torch.searchsorted(ordered, positive, right=True)
    return float((below + up_to).double().mean() / (2 * len(negative)))
