"""Test-time compute: an evolutionary search over candidates, after Mind Evolution (Lee et al. 2025, arXiv 2501.09891).
There a language model recombines candidates and a program scores them; here the model proposes and scores them, and
they are cut and joined at random.

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

from memlayers.facts.friends import steps_of
from memlayers.facts.world import END, PAD
from memlayers.model import Transformer
from memlayers.recall.ask import answer_lengths, ask, decode, gold
from memlayers.text import Text

MOST = 300  # facts over a friend that are asked
CONSTRAINTS = {"two_hop": 0, "constrained": 2}  # most facts of the friend that a question tells
ROUNDS = (1, 4, 16, 64)  # numbers of candidates
GENERATIONS = 4  # at most, of children, which are half of the candidates
PARENTS = 4  # at least, of a generation where there are as many
TRIES = 4  # at a child that is not there yet


def searched(model: Transformer, text: Text) -> dict[str, dict[str, float]] | None:
    """Share of right answers to questions over a friend, of people of whom training tells no such fact, by kind.

    sampled_k: of the best of k names, the first by greedy decoding and the others drawn from the model; sampled_1 is
    the same in all kinds. evolved_k: the first half of these names, and as many children of the best. with_truth: as
    evolved with the most names, and the friend's own name beside them: whether the best of these answers right. None in
    a world without friends.
    """
    world = text.world
    if not world.hops:
        return None
    over_friend = torch.tensor(list(world.hops))
    people = (~world.is_told[:, over_friend].any(dim=1)).nonzero()[:, 0]
    facts = torch.cartesian_prod(people, over_friend)
    facts = facts[torch.randperm(len(facts), generator=torch.Generator().manual_seed(9))[:MOST]]
    search = Search(model, text, facts)
    names = [search.spelt(torch.zeros_like(search.truth), greedy=number == 0) for number in range(ROUNDS[-1])]
    return {kind: search.results(names, constraints) for kind, constraints in CONSTRAINTS.items()}


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
    """A search for the answers to facts (b, 2) over a friend."""

    def __init__(self, model: Transformer, text: Text, facts: Tensor):
        world, self.model, self.text = text.world, model, text
        self.of_friend, self.asked = steps_of(world, facts)  # (b, 2) who the friend is, and what is asked of the friend
        self.truth = gold(text, self.of_friend, world.subjects.shape[1])
        self.relations = torch.tensor(sorted({second for _, second in world.hops.values()}))
        self.lengths = answer_lengths(world)
        self.generator = torch.Generator().manual_seed(10)

    def results(self, names: list[tuple[Tensor, Tensor]], constraints: int) -> dict[str, float]:
        """What `searched` says of a kind, from names (b, s) that are drawn and their log probabilities (b,)."""
        told = self.told(constraints)
        drawn = self.judged(names, told)
        recall = {f"sampled_{count}": drawn.first(count).recall() for count in ROUNDS}
        evolved = {count: self.evolved(drawn.first(count // 2), count, told) for count in ROUNDS[1:]}
        recall |= {f"evolved_{count}": found.recall() for count, found in evolved.items()}
        whole = evolved[ROUNDS[-1]] + self.judged([self.spelt(self.truth)], told)
        return recall | {"with_truth": whole.recall()}

    def told(self, constraints: int) -> list[Tensor]:
        """As many other facts (b, 2) of the friend, or all where there are fewer."""
        place = (self.relations == self.asked[:, 1:]).long().argmax(dim=1)
        steps = range(1, min(constraints + 1, len(self.relations)))
        others = [self.relations[(place + step) % len(self.relations)] for step in steps]
        return [torch.stack([self.asked[:, 0], other], dim=1) for other in others]

    def evolved(self, found: Candidates, count: int, told: list[Tensor]) -> Candidates:
        """Candidates, and generations of children of their best, up to a `count`."""
        self.generator.manual_seed(count)
        brood = max((count - found.scores.shape[1]) // GENERATIONS, 1)
        while (there := found.scores.shape[1]) < count:
            parents = found.best(min(max(brood, PARENTS), there))
            found += self.judged([self.spelt(self.child(parents, found.names)) for _ in range(brood)], told)
        return found

    def child(self, parents: Tensor, there: Tensor) -> Tensor:
        """Of names (b, p, s), for each question the first tokens of one and the rest of another, or, with even odds,
        PAD, which leaves the rest to the model: (b, s). Of a few children the first that is not among names (b, c, s).
        """
        questions, count, length = parents.shape
        row = torch.arange(questions)[:, None]

        def number(low: int, high: int) -> Tensor:
            return torch.randint(low, max(high, low + 1), (questions, TRIES), generator=self.generator)

        one, is_joined = number(0, count), number(0, 2)
        other = (one + number(1, count)) % count
        cut = torch.where(is_joined > 0, number(1, length), number(0, length))[..., None]
        rest = parents[row, other] * is_joined[..., None]
        children = torch.where(torch.arange(length) < cut, parents[row, one], rest)  # (b, t, s)
        is_new = (children[:, :, None] != there[:, None]).any(dim=3).all(dim=2)
        return children[row[:, 0], is_new.long().argmax(dim=1)]

    def spelt(self, given: Tensor, greedy: bool = False) -> tuple[Tensor, Tensor]:
        """Names (b, s) for the friends, tokens that are PAD in `given` chosen by the model, and their log probabilities
        (b,).
        """

        def choose(log_probability: Tensor, step: int) -> Tensor:
            allowed = log_probability.cpu().index_fill(1, torch.tensor([PAD, END]), -torch.inf)
            if greedy:
                free = allowed.argmax(dim=1)
            else:
                free = torch.multinomial(allowed.exp(), 1, generator=self.generator)[:, 0]
            return torch.where(given[:, step] == PAD, free, given[:, step]).to(log_probability.device)

        documents = self.text.probe(self.of_friend, "training", torch.Generator()).documents
        return decode(self.model, documents, self.lengths[self.of_friend[:, 1]], choose)

    def judged(self, spelt: list[tuple[Tensor, Tensor]], told: list[Tensor]) -> Candidates:
        """Candidates of names (b, s) and their log probabilities (b,), by what is told of the friend."""
        names, scores, right = [], [], []
        for name, score in spelt:
            for fact in told:
                score = score - log(2) * ask(self.model, self.text, fact, "training", names=name).surprise
            documents = self.text.probe(self.asked, "training", torch.Generator(), names=name).documents
            answer, confidence = decode(self.model, documents, self.lengths[self.asked[:, 1]])
            names.append(name)
            scores.append(score + confidence)
            right.append((answer == gold(self.text, self.asked, answer.shape[1])).all(dim=1))
        return Candidates(*(torch.stack(parts, dim=1) for parts in (names, scores, right)))
