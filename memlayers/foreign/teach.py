"""Customisation: a Llama with one memory layer knows facts of a world and is taught new ones, in any of several ways.

context     nothing is trained: all new facts of a person stand before the question
full        AdamW on all parameters          lora    AdamW on LoRA of all matrices but the memory's (peft)
table       SGD on the value table           rows    SGD on the 500 or 2000 rows that sparse memory finetuning chooses

All ways that train are taught the same facts in the same words until they recall 95% of them, or for 400 steps.
"""

import copy
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.config import BiographiesConfig
from memlayers.documents import Documents, squeezed
from memlayers.foreign.groups import param_groups
from memlayers.foreign.swap import swap
from memlayers.kernels import choose
from memlayers.layers import Memory
from memlayers.optim import RowwiseAdagrad
from memlayers.optim.sparse_finetuning import Background, choose_rows, count_reads, only_rows
from memlayers.text import Text, text_of

NEW, TARGET, MOST = 200, 0.95, 400  # facts to be taught; the recall of them to be reached; steps
BATCHES = 200  # of the background, of 20 old facts each
RELATIONS = 4


class Taught(NamedTuple):
    """A pretrained model, and questions with answers (b, s): of old facts, which it knows, of new ones, and of new ones
    after all facts of their person.
    """

    model: nn.Module
    old: Documents
    new: Documents
    new_in_context: Documents


def pretrained(people: int, seed: int, steps: int = 800) -> Taught:
    """Train a Llama, whose third feed-forward of four is a memory, on all facts but the new ones. Every second batch
    tells the facts of a person before it asks for one, and draws them anew: they are to be read, not known.
    """
    import transformers

    sizes: dict[str, Any] = {"name_parts": [40] * 3, "cardinalities": [64] * RELATIONS}
    text = text_of(BiographiesConfig(name="biographies", num_people=people, seed=seed, **sizes))
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    spread: dict[str, Any] = {"initializer_range": 0.05, "tie_word_embeddings": True}
    config = transformers.LlamaConfig(vocab_size=len(text.vocabulary), **shape, **special, **spread)
    model = transformers.LlamaForCausalLM(config)
    swap(model, "model.layers.2.mlp", Memory(num_keys=64, heads=4, topk=8), seed=seed)
    *others, values = param_groups(model)
    optimizers = [
        torch.optim.AdamW(others, weight_decay=0.0),
        RowwiseAdagrad(lr=1.0).build(values["params"], choose("auto")),
    ]
    every = questions(text, text.facts)
    old = Documents(*(table[:-NEW] for table in every))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizers[0].param_groups:
            group["lr"] = 3e-3 * min(1, step / 50) * (1 - step / steps)
        drawn = torch.randint(len(old.tokens), (256,), generator=generator)
        asked = told(old, drawn, generator, anew=True) if step % 2 else of(old, drawn)
        answered(model, asked)[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    new = torch.arange(len(old.tokens), len(every.tokens))
    return Taught(model, old, of(every, new), told(every, new, generator))


def questions(text: Text, facts: Tensor) -> Documents:
    return text.probe(facts, "training", torch.Generator().manual_seed(0)).documents


def of(documents: Documents, rows: Tensor) -> Documents:
    return Documents(*(table[rows] for table in documents))


def told(documents: Documents, rows: Tensor, generator: torch.Generator, anew: bool = False) -> Documents:
    """Questions (b, s) after all facts of their person, in a random order; only the last answer is asked for.

    anew: objects are those of a person drawn at random, the same ones in the context and in the answer.
    """
    order = torch.rand(len(rows), RELATIONS, generator=generator).argsort(dim=1)
    order = torch.cat([order, rows[:, None] % RELATIONS], dim=1)  # (b, facts of the context and the question)
    people = len(documents.tokens) // RELATIONS
    owners = torch.randint(people, (len(rows),), generator=generator) if anew else rows // RELATIONS
    asked, source = (of(documents, one[:, None] * RELATIONS + order) for one in (rows // RELATIONS, owners))
    tokens = torch.where(asked.answers, source.tokens, asked.tokens)
    answers, in_context = asked.answers.clone(), asked.tokens != 0
    answers[:, :-1], in_context[:, -1] = False, False
    return squeezed(Documents(*(table.flatten(1) for table in (tokens, answers, in_context))))


def answered(model: nn.Module, documents: Documents) -> tuple[Tensor, float]:
    """The mean cross-entropy of answers, and the share of documents whose whole answer is the arg max."""
    where, target = documents.answers[:, 1:], documents.tokens[:, 1:]
    logits = model(documents.tokens[:, :-1]).logits
    right = (logits.argmax(dim=-1) == target) | ~where
    return F.cross_entropy(logits[where], target[where]), float(right.all(dim=1).double().mean())


def teach(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    """Teach the new facts. Returns steps and seconds, recall of `new` and `old` facts, `forgotten`, by which share
    that of old ones falls, `bytes` of what has to be kept beside the first model, and mean `tokens` of a question.
    """
    before = recall(taught.model, taught.old)
    if arm == "context":
        asked, found = taught.new_in_context, {"steps": 0, "seconds": 0.0, "old": before}
        found |= {
            "new": recall(taught.model, asked),
            "bytes": 2 * int(taught.new.tokens.count_nonzero()),
        }  # two a token
    else:
        asked, found = taught.new, trained(arm, taught, rate)
    tokens = float((asked.tokens[:, :-1] != 0).sum(dim=1).double().mean())
    forgotten = 1 - found["old"] / before
    return {"arm": arm, "rate": rate, "before": before, "forgotten": forgotten, "tokens": tokens} | found


def trained(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    began = time.perf_counter()
    with way(arm, taught, rate) as (model, optimizer):
        for step in range(MOST + 1):
            loss, learnt = answered(model, taught.new)
            if learnt >= TARGET or step == MOST or not loss.isfinite():
                break
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds = time.perf_counter() - began
        old, size = recall(model, taught.old), delta_bytes(taught.model, model)
    return {"steps": step, "seconds": seconds, "new": learnt, "old": old, "bytes": size}


@torch.no_grad()
def recall(model: nn.Module, documents: Documents) -> float:
    return answered(model, documents)[1]


def delta_bytes(before: nn.Module, after: nn.Module) -> int:
    """Bytes of the parameters that the model before lacks, and of the rows of the others that differ, each with its
    number in four bytes unless all of them do.
    """
    known, size = dict(before.named_parameters()), 0
    for name, parameter in after.named_parameters():
        name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")  # peft's names
        if name not in known:
            size += parameter.nbytes
            continue
        rows, own = (one.reshape(-1, one.shape[-1]) for one in (parameter, known[name]))
        changed = int((rows != own).any(dim=1).sum())
        size += changed * (rows[0].nbytes + 4 * (changed < len(rows)))
    return size


@contextmanager
def way(arm: str, taught: Taught, rate: float) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
    """Context with a copy of the model, and the optimizer of the parameters that an arm trains."""
    model = copy.deepcopy(taught.model)
    param_groups(model, tables="dense" if arm == "full" else "sparse")
    if arm == "full":
        yield model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    elif arm == "lora":
        import peft

        names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        with warnings.catch_warnings():  # peft 0.21 asks transformers 5.24 for a name that is about to change
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=names))
        added = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        yield adapted, torch.optim.AdamW(added, lr=rate, weight_decay=0.0)
    else:
        counts = count_reads(model, taught.new.tokens[:, :-1])
        drawn = torch.randint(len(taught.old.tokens), (BATCHES, 20), generator=torch.Generator().manual_seed(0))
        background = Background.of(model, ((taught.old.tokens[rows, :-1], None) for rows in drawn))
        every = {pool: torch.arange(len(pool.values)) for pool in counts}
        rows = every if arm == "table" else choose_rows(counts, background, int(arm.removeprefix("rows_")))
        with only_rows(model, rows) as tables:
            yield model, torch.optim.SGD(tables, lr=rate)
