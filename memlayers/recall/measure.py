"""All recall read-outs of a trained model, the block `recall` of its record."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from memlayers.facts.world import PAD
from memlayers.model import Transformer
from memlayers.recall.addresses import addresses
from memlayers.recall.ask import (
    Answers,
    ask,
    decode_answers,
    gold,
    majority_share,
    prior_bits,
    sample_facts,
    share,
    shuffled,
)
from memlayers.recall.associative import associative_recall
from memlayers.recall.composed import composed
from memlayers.recall.context import in_context
from memlayers.recall.corpora import bits_per_byte
from memlayers.recall.decodable import decodable
from memlayers.recall.search import searched
from memlayers.recall.usage import tables
from memlayers.recall.votes import votes
from memlayers.text import Text

BUCKETS = (1, 4, 16, 64, 256, 1024)  # lower bounds of buckets, in exposures
MAX_FACTS = 200_000  # most facts asked at the end of a run; larger worlds are sampled
MAX_CONFIDENCE = 2_000  # most known and unknown subjects whose confidence is compared


def measure(model: Transformer, text: Text, documents: int) -> dict[str, Any]:
    """All read-outs after training on so many documents.

    exact, held_out: share of facts whose whole object is right, in training and in held-out phrasings.
    by_view: the same in each kind of view of the subjects; None in a world without views.
    questions, held_out_questions: the same in questions as training asks them, and in held-out ones, about subjects
    without questions in training; None if training has no questions.
    stored_bits: sum over facts of log2(1 / prior) minus the model's surprise, scaled to the whole world if not all
    were asked: of a large world a sample is, and no relation whose training sentences all have the object first. A
    model that answers by frequency scores 0, a confidently wrong one less. Facts that others compose hold no bits of
    their own.
    """
    world = text.world
    facts = sample_facts(world, MAX_FACTS)
    trained = ask(model, text, facts, "training")
    others = phrasings(text, facts)
    by_phrasing = {kind: ask(model, text, which, kind).exact for kind, which in others.items()}
    control = ask(model, text, facts, "training", shuffled(world, seed=1))
    asked = torch.stack([trained.subject, trained.relation], dim=1)
    scale, prior = world.num_facts / len(asked), prior_bits(world, asked)
    exposures = text.exposures_per_document[asked[:, 0], asked[:, 1]] * documents
    single = ~torch.isin(trained.relation, torch.tensor(list(world.hops), dtype=torch.long))
    bits = scale * float(prior[single].sum())
    stored = bits - scale * float(trained.surprise[single].double().sum())
    return {
        "num_facts": world.num_facts,
        "asked": len(asked),
        "exact": mean(trained.exact),
        **{kind: share(exact) for kind, exact in by_phrasing.items()},
        "shuffled": mean(control.exact),
        "floor": majority_share(world, asked),
        "stored_bits": stored,
        "world_bits": bits,
        "by_relation": {
            name: mean(trained.exact[trained.relation == index])
            for index, name in enumerate(world.relations)
            if (trained.relation == index).any()
        },
        "by_view": {kind: mean(ask(model, text, facts, kind).exact) for kind in views(text)} or None,
        "votes": votes(model, text, facts),
        "composed": composed(model, text),
        "searched": searched(model, text),
        "associative": associative_recall(model, text),
        "context": in_context(text, {"training": facts, **others}),
        "by_exposures": by_exposures(trained, exposures),
        "unknown": unknown_subjects(model, text, facts),
        "tables": tables(model, text, facts),
        "addresses": addresses(model, text, facts),
        "decodable": decodable(model, text),
        "bits_per_byte": bits_per_byte(model, text),
    }


def phrasings(text: Text, facts: Tensor) -> dict[str, Tensor]:
    """By phrasing that is not plain training, the facts to ask: for questions, those of subjects without questions in
    training.
    """
    asked = text.telling.is_asked
    others = facts[~asked[facts[:, 0]]] if asked.any() else facts[:0]
    return {"held_out": facts, "questions": others, "held_out_questions": others}


def views(text: Text) -> list[str]:
    """The kinds of view of a world's subjects, besides training and held_out."""
    return [kind for kind in text.world.views if kind not in ("training", "held_out")]


def mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def by_exposures(answers: Answers, exposures: Tensor) -> dict[str, float]:
    """Recall in buckets of expected exposures: {"16-63": 0.41, ...}."""
    edges = (0, *BUCKETS, math.inf)
    recall = {}
    for low, high in itertools.pairwise(edges):
        inside = (exposures >= low) & (exposures < high)
        if inside.any():
            recall[f"{low}+" if high == math.inf else f"{low}-{int(high) - 1}"] = mean(answers.exact[inside])
    return recall


def unknown_subjects(model: Transformer, text: Text, facts: Tensor) -> dict[str, float | None]:
    """How well confidence, the probability of the decoded object, separates known subjects from unknown ones.

    auroc: probability that the answer about a known subject has more confidence than that about an unknown one.
    auroc_by_tokens: the same of a score that knows no subject, how many known ones have each token of the name, as a
    mean over tokens. A known subject counts itself, which raises it above 0.5; known names of more or rarer tokens
    lower it.
    recall_at_1, recall_at_5: share of facts that are right and above the confidence that 1% (5%) of the answers about
    unknown subjects exceed. None in a world without unknown subjects.
    """
    world = text.world
    if not len(world.unknown):
        return dict.fromkeys(("auroc", "auroc_by_tokens", "recall_at_1", "recall_at_5"))
    generator = torch.Generator().manual_seed(2)
    known = facts[torch.randperm(len(facts), generator=generator)[:MAX_CONFIDENCE]]
    strangers = torch.randint(len(world.unknown), (len(known),), generator=generator) + len(world.subjects)
    stranger_facts = torch.stack([strangers, known[:, 1]], dim=1)
    decoded, known_confidence, asked = decode_answers(model, text, known)
    _, unknown_confidence, _ = decode_answers(model, text, stranger_facts)
    right = (decoded == gold(text, asked, decoded.shape[1])).all(dim=1)

    def recall_at(share: float) -> float:
        threshold = unknown_confidence.sort(descending=True).values[int(share * len(unknown_confidence))]
        return mean(right & (known_confidence > threshold))

    return {
        "auroc": auroc(known_confidence, unknown_confidence),
        "auroc_by_tokens": auroc(familiarity(text, known[:, 0]), familiarity(text, strangers)),
        "recall_at_1": recall_at(0.01),
        "recall_at_5": recall_at(0.05),
    }


def familiarity(text: Text, subjects: Tensor) -> Tensor:
    """How many known subjects have each token of these names, as a mean over their tokens: (b,)."""
    known = text.subjects[: len(text.world.subjects)].sort(dim=1).values
    is_first = known.diff(dim=1, prepend=torch.full_like(known[:, :1], -1)) != 0  # in its name
    counts = known[is_first].bincount(minlength=len(text.vocabulary))
    names = text.subjects[subjects]
    is_token = names != PAD
    return (counts[names] * is_token).sum(dim=1) / is_token.sum(dim=1)


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive exceeds a negative, ties counting half (Mann-Whitney), by sorting."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, right=False)
    up_to = torch.searchsorted(ordered, positive, right=True)
    return float((below + up_to).double().mean() / (2 * len(negative)))
