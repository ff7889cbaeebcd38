"""Questions that two stored facts answer together: can what is stored be used, or only said?"""

import torch

from memlayers.facts.friends import steps_of
from memlayers.model import Transformer
from memlayers.recall.ask import ask, share
from memlayers.text import Text

MOST = 4_000  # facts of two hops that are asked


def composed(model: Transformer, text: Text) -> dict[str, float | None] | None:
    """Recall of a sample of the world's facts of two hops, None where it has none; and of each kind, None without any.

    told: of those that training tells. withheld: of people of whom it tells others. untold: of people of whom it tells
    none. in_steps: of the untold ones, if the two hops are asked one after the other, which costs two questions.
    withheld_if_known, untold_if_known: of those both of whose hops are right.
    """
    world = text.world
    if not world.hops:
        return None
    over_friend = torch.tensor(list(world.hops))
    facts = (world.facts >= 0).nonzero()
    facts = facts[torch.isin(facts[:, 1], over_friend)]
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(8))[:MOST]]
    right, first_right, second_right = (
        ask(model, text, one, "training").exact for one in (facts, *steps_of(world, facts))
    )
    told, known = world.is_told[facts[:, 0], facts[:, 1]], first_right & second_right
    withheld = world.is_told[:, over_friend].any(dim=1)[facts[:, 0]] & ~told
    untold = ~withheld & ~told
    return {
        "told": share(right[told]),
        "withheld": share(right[withheld]),
        "untold": share(right[untold]),
        "in_steps": share(known[untold]),
        "withheld_if_known": share(right[withheld & known]),
        "untold_if_known": share(right[untold & known]),
    }
