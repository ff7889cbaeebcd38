"""Where in a sentence a fact is known: linear probes of the residual stream (Physics of Language Models 3.1).

    the birthplace of  Ada Ek Fu  is  Rome        at_name: at the last token of the name
                             ^    ^               at_answer: at the last token before the answer

In a model that looks up facts by subject, all objects can be decoded at the name; in one that looks them up by subject
and relation together, none can.
"""

import torch
from torch import Tensor

from memlayers.documents import chunks
from memlayers.model import Transformer
from memlayers.recall.addresses import name_ends
from memlayers.recall.ask import evaluation
from memlayers.text import Text

MOST = 2_000  # subjects; the first half trains the probes, the second tests them
CHUNK = 512  # sentences in a forward pass
RIDGE = 1e-2  # of the mean variance of a feature


def decodable(model: Transformer, text: Text) -> dict[str, dict[str, float]] | None:
    """By block and position, the accuracy of linear probes for the object, from the residual stream after that block,
    on subjects that they were not trained on; the mean over relations. None for terse text.
    """
    if text.style != "prose" or not len(model.blocks):
        return None
    world = text.world
    subjects = torch.randperm(len(world.facts), generator=torch.Generator().manual_seed(4))[:MOST]
    by_block: dict[str, dict[str, list[float]]] = {}
    for relation in range(len(world.relations)):
        known = subjects[world.facts[subjects, relation] >= 0]
        facts = torch.stack([known, torch.full_like(known, relation)], dim=1)
        objects = world.facts[known, relation]
        if len(facts) < 2 or not int(text.layouts["training"].count[relation]):
            continue
        for block, places in streams(model, text, facts).items():
            for place, features in places.items():
                share = probed(features, objects)
                by_block.setdefault(block, {}).setdefault(place, []).append(share)
    return {
        block: {place: sum(shares) / len(shares) for place, shares in places.items()}
        for block, places in by_block.items()
    }


@torch.no_grad()
def streams(model: Transformer, text: Text, facts: Tensor) -> dict[str, dict[str, Tensor]]:
    """The residual stream (b, d_model) after each block, at_name and at_answer in a training sentence of each fact.

    With loops, each pass over a block counts as a block.
    """
    probe = text.probe(facts, "training", torch.Generator().manual_seed(0))
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda *call: outputs.append(call[2][0])) for block in model.blocks]
    by_block: dict[str, dict[str, list[Tensor]]] = {}
    try:
        with evaluation(model):
            for part in chunks(probe, CHUNK):
                tokens = part.documents.tokens.to(model.embedding.weight.device)
                outputs.clear()
                model(tokens, torch.zeros_like(tokens, dtype=torch.bool))
                row = torch.arange(len(tokens))
                before = part.documents.answers.long().argmax(dim=1) - 1
                for index, stream in enumerate(outputs):
                    for place, where in (("at_name", name_ends(part)), ("at_answer", before)):
                        here = stream.float().cpu()[row, where]
                        by_block.setdefault(str(index), {}).setdefault(place, []).append(here)
    finally:
        for hook in hooks:
            hook.remove()
    return {block: {place: torch.cat(parts) for place, parts in places.items()} for block, places in by_block.items()}


def probed(features: Tensor, classes: Tensor) -> float:
    """Accuracy of a ridge regression onto one-hot classes (b,): the first half trains, the second tests."""
    half = len(features) // 2
    centred = (features - features[:half].mean(dim=0)).double()
    train, test = centred[:half], centred[half:]
    indicators = torch.nn.functional.one_hot(classes.long(), int(classes.max()) + 1).double()
    mean = indicators[:half].mean(dim=0)
    gram = train.T @ train
    gram += torch.eye(len(gram), dtype=gram.dtype) * (RIDGE * gram.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(gram, train.T @ (indicators[:half] - mean))
    return float(((test @ weights + mean).argmax(dim=1) == classes[half:]).double().mean())
