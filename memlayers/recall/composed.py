"""Questions that two stored facts answer together: can what is stored be used, or only said?"""

import torch
from torch import Tensor

from memlayers.model import Transformer
from memlayers.recall.ask import ask
from memlayers.text import Text

MOST = 4_000  # facts of two hops that are asked


def composed(model: Transformer, text: Text) -> dict[str, float] | None:
    """Recall of a sample of the world's facts of two hops; None where it has none.

    told: of those that training tells. untold: of those that it never does. in_steps: of the untold ones, if the two
    hops are asked one after the other, which costs two questions. untold_if_known: of untold ones both of whose hops
    are right.
    """
    world = text.world
    if not world.hops:
        return None
    facts = (world.facts >= 0).nonzero()
    facts = facts[torch.isin(facts[:, 1], torch.tensor(list(world.hops)))]
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(8))[:MOST]]
    hops = torch.tensor([world.hops[relation] for relation in facts[:, 1].tolist()])  # (f, 2)
    via = world.facts[facts[:, 0], hops[:, 0]]
    first, second = torch.stack([facts[:, 0], hops[:, 0]], dim=1), torch.stack([via, hops[:, 1]], dim=1)
    right, first_right, second_right = (ask(model, text, one, "training").exact for one in (facts, first, second))
    told, known = world.is_told[facts[:, 0], facts[:, 1]], first_right & second_right
    return {
        "told": share(right[told]),
        "untold": share(right[~told]),
        "in_steps": share(known[~told]),
        "untold_if_known": share(right[~told & known]),
    }


def share(hits: Tensor) -> float:
    return float(hits.double().mean()) if len(hits) else 0.0
