"""Where in a sentence a fact is known: linear probes of the residual stream (Physics of Language Models 3.1).

    the birthplace of  Ada Ek Fu  is  Rome        at_name: is Rome there before anyone asked for a birthplace?
                             ^    ^               at_answer: and at the last token before it has to be said?

A model that answers from the subject knows all of its objects at its name; one that answers from subject and relation
together knows none of them there.
"""

import torch
from torch import Tensor

from memlayers.documents import chunks
from memlayers.model import Transformer
from memlayers.recall.addresses import name_ends
from memlayers.recall.ask import evaluation
from memlayers.text import Text

MOST = 2_000  # subjects; half of them train the probes, the others are asked
CHUNK = 512  # sentences a forward pass
RIDGE = 1e-2  # of the mean variance of a feature


def decodable(model: Transformer, text: Text) -> dict[str, dict[str, float]] | None:
    """By block and place, the share of objects that a linear probe finds in the stream after that block, for subjects
    that it was not trained on: a mean over relations. None for terse text.
    """
    if text.style != "prose" or not len(model.blocks):
        return None
    world = text.world
    subjects = torch.randperm(len(world.facts), generator=torch.Generator().manual_seed(4))[:MOST]
    found: dict[str, dict[str, list[float]]] = {}
    for relation in range(len(world.relations)):
        known = subjects[world.facts[subjects, relation] >= 0]
        facts = torch.stack([known, torch.full_like(known, relation)], dim=1)
        objects = world.facts[known, relation]
        if not len(facts) or not int(text.layouts["training"].count[relation]):
            continue
        for block, places in streams(model, text, facts).items():
            for place, features in places.items():
                share = probed(features, objects)
                found.setdefault(block, {}).setdefault(place, []).append(share)
    return {block: {place: sum(all_) / len(all_) for place, all_ in places.items()} for block, places in found.items()}


@torch.no_grad()
def streams(model: Transformer, text: Text, facts: Tensor) -> dict[str, dict[str, Tensor]]:
    """The residual stream (b, d_model) after each block, at_name and at_answer of a training sentence of each fact.

    Of a model with loops, blocks are counted as they are passed.
    """
    probe = text.probe(facts, "training", torch.Generator().manual_seed(0))
    made: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *seen: made.append(seen[2][0])) for block in model.blocks]
    found: dict[str, dict[str, list[Tensor]]] = {}
    try:
        with evaluation(model):
            for part in chunks(probe, CHUNK):
                tokens = part.documents.tokens.to(model.embedding.weight.device)
                made.clear()
                model(tokens, torch.zeros_like(tokens, dtype=torch.bool))
                row = torch.arange(len(tokens))
                before = part.documents.answers.long().argmax(dim=1) - 1
                for index, stream in enumerate(made):
                    for place, where in (("at_name", name_ends(part)), ("at_answer", before)):
                        here = stream.float().cpu()[row, where]
                        found.setdefault(str(index), {}).setdefault(place, []).append(here)
    finally:
        for hook in hooks:
            hook.remove()
    return {block: {place: torch.cat(parts) for place, parts in places.items()} for block, places in found.items()}


def probed(features: Tensor, classes: Tensor) -> float:
    """Accuracy of ridge regression onto indicators of the classes (b,): the first half trains, the second is asked."""
    half = len(features) // 2
    centred = (features - features[:half].mean(dim=0)).double()
    ours, theirs = centred[:half], centred[half:]
    indicators = torch.nn.functional.one_hot(classes.long(), int(classes.max()) + 1).double()
    mean = indicators[:half].mean(dim=0)
    gram = ours.T @ ours
    gram += torch.eye(len(gram), dtype=gram.dtype) * (RIDGE * gram.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(gram, ours.T @ (indicators[:half] - mean))
    return float(((theirs @ weights + mean).argmax(dim=1) == classes[half:]).double().mean())
