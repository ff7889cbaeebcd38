"""Does a student know what its teacher knows, and does it repeat its mistakes?"""

import torch

from memlayers.model import Transformer
from memlayers.recall.ask import gold, said, sample_facts
from memlayers.text import Text

MAX_FACTS = 2_000


def agreement(student: Transformer, teacher: Transformer, text: Text) -> dict[str, float | None]:
    """Of decoded answers to `asked` facts, in the phrasing of training.

    exact: share that the teacher gets right. right_when_right, right_when_wrong: share that the student gets right, of
    those. agrees_when_wrong: of those that the teacher gets wrong, share to which the student gives the teacher's
    answer. Null where there are none.
    """
    facts = sample_facts(text.world, MAX_FACTS)
    own, _, asked = said(student, text, facts)
    theirs, _, _ = said(teacher, text, facts)
    true = gold(text, asked, own.shape[1])
    right, is_known, agrees = ((a == b).all(dim=1) for a, b in ((own, true), (theirs, true), (own, theirs)))

    def share(hits: torch.Tensor) -> float | None:
        return float(hits.double().mean()) if len(hits) else None

    return {
        "asked": len(asked),
        "exact": share(is_known),
        "right_when_right": share(right[is_known]),
        "right_when_wrong": share(right[~is_known]),
        "agrees_when_wrong": share(agrees[~is_known]),
    }
