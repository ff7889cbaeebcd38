"""Agreement of student and teacher, on facts that the teacher knows and on its mistakes."""

from memlayers.model import Transformer
from memlayers.recall.ask import decode_answers, gold, sample_facts, share
from memlayers.text import Text

MAX_FACTS = 2_000


def agreement(student: Transformer, teacher: Transformer, text: Text) -> dict[str, float | None]:
    """Compare decoded answers to `asked` facts, in the phrasing of training.

    exact: share that the teacher gets right. right_when_right, right_when_wrong: recall of the student on facts that
    the teacher gets right, and wrong. agrees_when_wrong: share of the teacher's wrong answers that the student gives
    too. None without such facts.
    """
    facts = sample_facts(text.world, MAX_FACTS)
    ours, _, asked = decode_answers(student, text, facts)
    theirs, _, _ = decode_answers(teacher, text, facts)
    true = gold(text, asked, ours.shape[1])
    right, is_known, agrees = ((a == b).all(dim=1) for a, b in ((ours, true), (theirs, true), (ours, theirs)))
    return {
        "asked": len(asked),
        "exact": share(is_known),
        "right_when_right": share(right[is_known]),
        "right_when_wrong": share(right[~is_known]),
        "agrees_when_wrong": share(agrees[~is_known]),
    }
