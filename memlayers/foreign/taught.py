"""A Llama with one memory layer that knows facts of a world, and the facts that it is to be taught.

                    a row of training                                       asked
terse, a fact       S Y D [country] AU                                      the same
prose, a subject    S Y D lies in AU . the clocks of S Y D follow ... .     in words of training, and in held-out ones
in the context      a document of the subject, then a question about it     in the words of the row above
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.config import BiographiesConfig
from memlayers.config.optim import OptimConfig, ScheduleConfig
from memlayers.config.text import ProseConfig
from memlayers.documents import Documents, after_context
from memlayers.facts.world import PAD
from memlayers.foreign.swap import swap
from memlayers.kernels import choose
from memlayers.layers import Memory
from memlayers.model import parameters_with_roles
from memlayers.optim import RowwiseAdagrad, build_optimizers, build_schedules, clip_gradients
from memlayers.text import Text, text_of

NEW = 50  # people whose facts are to be taught
STEPS, ROWS = {"terse": 800, "prose": 1800}, {"terse": 256, "prose": 24}  # of pretraining
RECIPE = OptimConfig(  # values are written when addresses have settled
    lr=3e-2,
    muon_lr=1e-2,
    schedule=ScheduleConfig(shape="trapezoid"),
    values=RowwiseAdagrad(lr=1.0, schedule=ScheduleConfig(warmup=0.5, shape="constant")),
)
SIZES: dict[str, dict[str, Any]] = {
    "biographies": {"name_parts": [40] * 3, "cardinalities": [64] * 4},
    "biographies_prose": {
        "name_parts": [40] * 3,
        "cardinalities": [64] * 4,
        "text": "prose",
        "document": "subject",
        "prose": ProseConfig(questions=0.0),
    },
}


class Taught(NamedTuple):
    """A pretrained model, and by phrasing its questions with answers (b, s): about old people, whose facts it knows,
    about new ones, and about new ones after a document of the person.
    """

    model: nn.Module
    text: Text
    old: dict[str, Documents]
    new: dict[str, Documents]
    new_in_context: dict[str, Documents]

    @property
    def num_old(self) -> int:
        return len(self.text.world.facts) - NEW

    @property
    def new_people(self) -> Tensor:
        """They come after the old ones."""
        return torch.arange(self.num_old, self.num_old + NEW)


def pretrained(world: str, people: int, seed: int) -> Taught:
    """Train a Llama, whose third feed-forward of four is a memory, on all facts but the new ones. Every third batch
    tells the facts of a person before it asks for one, with objects drawn anew: they are to be read, not known.
    """
    import transformers

    text = text_of(BiographiesConfig(name=world, num_people=people, seed=seed, **SIZES[world]))
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": PAD}
    spread: dict[str, Any] = {"initializer_range": 0.05, "tie_word_embeddings": True}
    config = transformers.LlamaConfig(vocab_size=len(text.vocabulary), **shape, **special, **spread)
    model = transformers.LlamaForCausalLM(config)
    swap(model, "model.layers.2.mlp", Memory(num_keys=64, heads=4, topk=8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    old, rows, steps = people - NEW, ROWS[text.style], STEPS[text.style]
    others = [parameter for _, role, parameter in parameters_with_roles(model) if role != "memory_value"]
    optimizers = build_optimizers(model, RECIPE, choose("auto"))
    schedules = build_schedules(optimizers, RECIPE, steps)
    for step in range(steps):
        if step % 3 == 2:
            known = text.world.facts[torch.randperm(people, generator=generator)]
            facts = drawn_facts(text, torch.randint(old, (rows,), generator=generator), generator)
            loss = answered(model, in_context(text, facts, "training", generator, known))[0]
        else:
            loss = loss_of(model, told(text, torch.randint(old, (rows,), generator=generator), generator), text)
        loss.backward()
        clip_gradients(others, RECIPE.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()
    everyone = facts_of(text, torch.arange(people))
    facts_old, facts_new = everyone[everyone[:, 0] < old], everyone[everyone[:, 0] >= old]
    phrasings = ["training", "held_out"] if text.style == "prose" else ["training"]
    return Taught(
        model,
        text,
        {one: questions(text, facts_old, one) for one in phrasings},
        {one: questions(text, facts_new, one) for one in phrasings},
        {one: in_context(text, facts_new, one, torch.Generator().manual_seed(seed)) for one in phrasings},
    )


def facts_of(text: Text, subject: Tensor) -> Tensor:
    """All facts (f, 2: subject, relation) of people (b,)."""
    relation = torch.arange(len(text.world.relations))
    return torch.cartesian_prod(subject, relation)


def drawn_facts(text: Text, subject: Tensor, generator: torch.Generator) -> Tensor:
    """One fact (b, 2) of each of the people (b,)."""
    relation = torch.randint(len(text.world.relations), subject.shape, generator=generator)
    return torch.stack([subject, relation], dim=1)


def questions(text: Text, facts: Tensor, phrasing: str) -> Documents:
    return text.probe(facts, phrasing, torch.Generator().manual_seed(0)).documents


def told(text: Text, subject: Tensor, generator: torch.Generator) -> Documents:
    """Rows of training about people (b,): a document each in prose; in terse text, where a row is a fact, one fact."""
    if text.document == "fact":
        return text.probe(drawn_facts(text, subject, generator), "training", generator).documents
    return text.stated(subject, generator)


def in_context(
    text: Text, facts: Tensor, phrasing: str, generator: torch.Generator, known: Tensor | None = None
) -> Documents:
    """Questions about facts (b, 2), each after a document of its person; `known` (n, r) replaces the world's facts."""
    front = text.stated(facts[:, 0], generator, known).tokens
    return after_context(front, text.probe(facts, phrasing, generator, known).documents)


def loss_of(model: nn.Module, documents: Documents, text: Text) -> Tensor:
    """The mean cross-entropy of answers in terse text, and of all tokens in prose."""
    where = documents.answers if text.style == "terse" else documents.tokens != PAD
    return answered(model, documents._replace(answers=where))[0]


def answered(model: nn.Module, documents: Documents) -> tuple[Tensor, float]:
    """The mean cross-entropy of answers, and the share of documents whose whole answer is the arg max."""
    where, target = documents.answers[:, 1:], documents.tokens[:, 1:]
    logits = model(documents.tokens[:, :-1]).logits
    right = (logits.argmax(dim=-1) == target) | ~where
    return F.cross_entropy(logits[where], target[where]), float(right.all(dim=1).double().mean())


@torch.no_grad()
def share_recalled(model: nn.Module, documents: Documents) -> float:
    return answered(model, documents)[1]
