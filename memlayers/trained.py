"""A saved model with its world: questions by name, and answers.

model = memlayers.load("results/local/single/atlas_airports/memory-s0-0123456789ab.safetensors")
model.ask("JFK", "country")     objects, the likeliest first
"""

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor

from memlayers.config import RunConfig
from memlayers.facts.world import PAD
from memlayers.model import Transformer
from memlayers.recall.ask import CHUNK, evaluation
from memlayers.text import Text


@dataclass(frozen=True)
class Reply:
    """The answer to a question: objects of the relation by falling probability."""

    subject: str
    relation: str
    objects: tuple[str, ...]
    probabilities: tuple[float, ...]  # of the whole object among all texts, so that they need not sum to 1
    truth: str | None  # None if the world has no such fact
    told: bool  # whether training tells it

    def __str__(self) -> str:
        return "  ".join(f"{name} {p:.3f}" for name, p in zip(self.objects, self.probabilities, strict=True))


class Trained:
    """A trained model with the world that it learnt."""

    def __init__(self, config: RunConfig, text: Text, model: Transformer):
        self.config, self.text, self.model = config, text, model.eval()
        world = text.world
        self.subjects = {name: row for row, name in enumerate(world.names())}  # unknown subjects come last
        self.objects = [world.object_names(relation) for relation in range(len(world.relations))]

    def fact(self, subject: str, relation: str) -> tuple[int, int]:
        """The indices of a subject and a relation. Raises ValueError for names that the world does not have."""
        for kind, name, names in (
            ("subject", subject, self.subjects),
            ("relation", relation, dict.fromkeys(self.text.world.relations)),
        ):
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or list(names)[:3]
                raise ValueError(f"{name!r}: no such {kind}; accepted: {len(names)} {kind}s, such as {', '.join(near)}")
        return self.subjects[subject], self.text.world.relations.index(relation)

    def question(self, fact: tuple[int, int], phrasing: str = "training") -> Tensor:
        """Tokens (q,) of a question, up to its answer, in a fixed template of this phrasing. Raises ValueError if the
        relation has none.
        """
        probe = self.text.probe(torch.tensor([fact]), phrasing, torch.Generator().manual_seed(0))
        if not len(probe.subject):
            name = self.text.world.relations[fact[1]]
            raise ValueError(f"phrasing={phrasing}: relation {name} has no such sentence; accepted: training")
        tokens, answers, _ = (table[0] for table in probe.documents)
        return tokens[: int(answers.long().argmax())]

    @torch.no_grad()
    def log_probabilities(self, question: Tensor, relation: int) -> Tensor:
        """The natural log probability of each object (m,) of a relation as the answer."""
        first, count = int(self.text.first_object[relation]), len(self.objects[relation])
        objects, parts = self.text.objects[first : first + count], []
        objects = objects[:, : int((objects != PAD).sum(dim=1).max())]
        with evaluation(self.model):
            for part in objects.split(CHUNK):
                tokens = torch.cat([question.expand(len(part), -1), part], dim=1).to(self.device)
                answer = tokens[:, len(question) :]
                where = torch.zeros_like(tokens[:, :-1], dtype=torch.bool)
                where[:, len(question) - 1 :] = True
                logits = self.model(tokens[:, :-1], where).logits.float().view(*answer.shape, -1)
                token_scores = logits.log_softmax(dim=-1).gather(-1, answer[..., None])[..., 0]
                parts.append(token_scores.masked_fill(answer == PAD, 0.0).sum(dim=1).cpu())
        return torch.cat(parts)

    def ask(self, subject: str, relation: str, top: int = 5, phrasing: str = "training") -> Reply:
        """Ask for a fact; the reply has the `top` likeliest objects. `phrasing`: training, held_out, questions,
        held_out_questions or a kind of view.
        """
        fact = self.fact(subject, relation)
        scores = self.log_probabilities(self.question(fact, phrasing), fact[1])
        best = scores.topk(min(top, len(scores)))
        names = self.objects[fact[1]]
        known = self.text.world.facts
        row = int(known[fact]) if fact[0] < len(known) else -1
        return Reply(
            subject,
            relation,
            tuple(names[index] for index in best.indices.tolist()),
            tuple(best.values.exp().tolist()),
            names[row] if row >= 0 else None,
            row >= 0 and bool(self.text.world.is_told[fact]),
        )

    @property
    def device(self) -> torch.device:
        return self.model.embedding.weight.device
