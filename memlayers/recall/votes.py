"""Test-time compute: a fact is asked in several held-out phrasings, and the answers vote (self-consistency, Wang 2022).

    the birthplace of Ada Ek Fu is   Rome 0.4        k = 2: Rome, by 0.4 + 0.3 against 0.5
    Ada Ek Fu first saw light in     Oslo 0.5        k = 1: Rome, the answer in the first phrasing, as in held_out
    records place Ada Ek Fu in       Rome 0.3

Each phrasing votes for the object that greedy decoding finds, with the probability that the model gives it. Asking in k
phrasings costs k times the inference FLOPs of asking once.
"""

import torch
from torch import Tensor

from memlayers.model import Transformer
from memlayers.recall.ask import answer_lengths, decode, gold
from memlayers.text import Text

MOST = 1_000  # most facts that are asked
ROUNDS = (1, 2, 4, 8)  # numbers of phrasings


def votes(model: Transformer, text: Text, facts: Tensor) -> dict[str, float] | None:
    """Recall of `facts` (f, 2), or of a sample, by the number of held-out phrasings that vote.

    Numbers above those of any relation's held-out phrasings are left out. None if fewer than two numbers are left.
    """
    counts = text.layouts["held_out"].count[facts[:, 1].unique()]
    rounds = [k for k in ROUNDS if len(counts) and k <= int(counts.min())]
    if len(rounds) < 2:
        return None
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(5))[:MOST]]
    first = torch.rand(len(facts), generator=torch.Generator().manual_seed(6))
    lengths = answer_lengths(text.world)[facts[:, 1]]
    answers, shares = [], []
    for number in range(rounds[-1]):
        pick = (first + number / rounds[-1]) % 1  # evenly spaced, so that a fact is never asked twice in one template
        probe = text.probe(facts, "held_out", torch.Generator(), pick=pick)
        answer, log_probability = decode(model, probe.documents, lengths)
        answers.append(answer)
        shares.append(log_probability.exp())
    answer, share = torch.stack(answers, dim=1), torch.stack(shares, dim=1)  # (f, k, o), (f, k)
    right = (answer == gold(text, facts, answer.shape[2])[:, None]).all(dim=2)
    return {str(k): float(elected(answer[:, :k], share[:, :k], right[:, :k]).double().mean()) for k in rounds}


def elected(answer: Tensor, share: Tensor, right: Tensor) -> Tensor:
    """Whether (f,) the elected answer is right: of the answers (f, k, o), that with the largest sum of votes `share`
    (f, k); of equal ones, the first. `right` (f, k) says which answers are right.
    """
    same = (answer[:, :, None] == answer[:, None]).all(dim=3)
    total = (same * share[:, None]).sum(dim=2)
    return right.gather(1, total.argmax(dim=1, keepdim=True))[:, 0]
