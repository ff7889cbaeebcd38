"""Test-time compute: an evolutionary search over candidates that the model proposes, scores and recombines, after Mind
Evolution (Lee et al. 2025, arXiv 2501.09891).

    Who employs the friend of Ada Ek Fu?                                            two_hop
    Who employs the friend of Ada Ek Fu, who was born in Rome and plays chess?      constrained

    candidate, a name     [friend] of Ada Ek Fu     born in Rome     plays chess     employer      score
    Bo Ek Li                   -1.2                    -0.1             -0.3         Acme  -0.2    -1.8
    Bo Go Li                   -0.9                    -6.0             -5.2         Borg  -2.1   -14.2

A score is the log probability that the model gives to all that would be true of the friend, and to its own answer. The
answer of the best candidate counts. A candidate costs one question for its name, one for each constraint, and one for
its answer.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from memlayers.facts.world import PAD
from memlayers.model import Transformer
from memlayers.recall.ask import ask, decode, gold
from memlayers.text import Text

MOST = 300  # facts over a friend that are asked
CONSTRAINTS = {"two_hop": 0, "constrained": 2}  # facts of the friend that a question tells
ROUNDS = (1, 4, 16, 64)  # numbers of candidates
GENERATIONS = 4  # of children, which are half of the candidates


def searched(model: Transformer, text: Text) -> dict[str, dict[str, float]] | None:
    """Share of right answers about friends of people whose friend's facts training never tells, by kind of question.

    sampled_k: of the best of k names, the first by greedy decoding and the others drawn from the model. evolved_k: half
    of k names are drawn, and half bred from the best. with_truth: as evolved with the most names, and the friend's own
    name beside them: where that is no better, a longer search would not help. None in a world without friends.
    """
    world = text.world
    if not world.hops:
        return None
    over_friend = torch.tensor(list(world.hops))
    facts = (~world.is_told[:, over_friend].any(dim=1)).nonzero()[:, 0]
    facts = torch.cartesian_prod(facts, over_friend)
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(9))[:MOST]]
    if not len(facts):
        return None
    return {kind: Search(model, text, facts, count).run() for kind, count in CONSTRAINTS.items()}


@dataclass
class Candidates:
    """c names for the friend in each of b questions."""

    names: Tensor  # (b, c, s) tokens
    scores: Tensor  # (b, c)
    right: Tensor  # (b, c) whether the answer would be right

    def __add__(self, other: "Candidates") -> "Candidates":
        pairs = ((self.names, other.names), (self.scores, other.scores), (self.right, other.right))
        return Candidates(*(torch.cat(pair, dim=1) for pair in pairs))

    def first(self, count: int) -> "Candidates":
        return Candidates(self.names[:, :count], self.scores[:, :count], self.right[:, :count])

    def recall(self) -> float:
        return float(self.right.gather(1, self.scores.argmax(dim=1, keepdim=True)).double().mean())

    def best(self, count: int) -> Tensor:
        """The names (b, count, s) with the highest scores; equal names count once while there are others."""
        same = (self.names[:, :, None] == self.names[:, None]).all(dim=3)
        again = same.tril(diagonal=-1).any(dim=2)
        order = self.scores.masked_fill(again, -torch.inf).topk(count, dim=1).indices
        return self.names.gather(1, order[..., None].expand(-1, -1, self.names.shape[2]))


class Search:
    """A search for the answers to facts (b, 2) over a friend, with so many constraints."""

    def __init__(self, model: Transformer, text: Text, facts: Tensor, constraints: int):
        world, self.model, self.text = text.world, model, text
        hops = torch.tensor([world.hops[relation] for relation in facts[:, 1].tolist()])  # (b, 2)
        friend = world.facts[facts[:, 0], hops[:, 0]]
        simple = torch.tensor(sorted({second for _, second in world.hops.values()}))
        place = (simple == hops[:, 1:]).long().argmax(dim=1)
        others = [simple[(place + step) % len(simple)] for step in range(1, min(constraints + 1, len(simple)))]
        self.friend = torch.stack([facts[:, 0], hops[:, 0]], dim=1)
        self.asked = torch.stack([friend, hops[:, 1]], dim=1)
        self.told = [torch.stack([friend, other], dim=1) for other in others]
        self.truth = gold(text, self.friend, world.subjects.shape[1])
        self.longest = torch.tensor([table.shape[1] for table in world.objects])
        self.generator = torch.Generator().manual_seed(10)

    def run(self) -> dict[str, float]:
        none = torch.zeros_like(self.truth)
        drawn = self.judged([self.spelt(none, greedy=number == 0) for number in range(ROUNDS[-1])])
        recall = {f"sampled_{count}": drawn.first(count).recall() for count in ROUNDS}
        for count in ROUNDS[1:]:
            evolved = self.evolved(drawn.first(count // 2), count)
            recall[f"evolved_{count}"] = evolved.recall()
        return recall | {"with_truth": (evolved + self.judged([self.spelt(self.truth)])).recall()}

    def evolved(self, found: Candidates, count: int) -> Candidates:
        """Candidates, and generations of their children up to a `count`."""
        brood = max((count - found.scores.shape[1]) // GENERATIONS, 1)
        while found.scores.shape[1] < count:
            parents = found.best(max(brood, 2))
            found += self.judged([self.spelt(self.child(parents)) for _ in range(brood)])
        return found

    def child(self, parents: Tensor) -> Tensor:
        """For each question the first tokens of one of the parents (b, p, s) and the rest of another: (b, s). In every
        second name the rest is PAD, which leaves it to the model.
        """
        questions, count, length = parents.shape
        one, other = torch.randint(count, (2, questions), generator=self.generator)
        cut = torch.randint(1, max(length, 2), (questions, 1), generator=self.generator)
        is_bred = torch.rand(questions, 1, generator=self.generator) < 0.5
        row, column = torch.arange(questions), torch.arange(length)
        return torch.where(column < cut, parents[row, one], parents[row, other] * is_bred)

    def spelt(self, given: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Names (b, s) for the friends, tokens that are PAD in `given` chosen by the model, and their log probabilities
        (b,).
        """

        def choose(log_probability: Tensor, step: int) -> Tensor:
            free = log_probability.argmax(dim=-1) if greedy else self.drawn(log_probability)
            wanted = given[:, step].to(free.device)
            return torch.where(wanted == PAD, free, wanted)

        documents = self.text.probe(self.friend, "training", torch.Generator()).documents
        return decode(self.model, documents, self.longest[self.friend[:, 1]], choose)

    def drawn(self, log_probability: Tensor) -> Tensor:
        """Tokens (b,) drawn from log probabilities (b, v)."""
        tokens = torch.multinomial(log_probability.exp().cpu(), 1, generator=self.generator)[:, 0]
        return tokens.to(log_probability.device)

    def judged(self, spelt: list[tuple[Tensor, Tensor]]) -> Candidates:
        """Candidates of names (b, s) and their log probabilities (b,)."""
        names, scores, right = [], [], []
        for name, score in spelt:
            for told in self.told:
                score = score - log(2) * ask(self.model, self.text, told, "training", names=name).surprise
            documents = self.text.probe(self.asked, "training", torch.Generator(), names=name).documents
            answer, confidence = decode(self.model, documents, self.longest[self.asked[:, 1]])
            names.append(name)
            scores.append(score + confidence)
            right.append((answer == gold(self.text, self.asked, answer.shape[1])).all(dim=1))
        return Candidates(*(torch.stack(parts, dim=1) for parts in (names, scores, right)))
