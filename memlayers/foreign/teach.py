"""Customisation: a Llama with one memory layer knows facts of a world and is taught new ones, in any of several ways.

context     nothing is trained: a document of the person stands before the question
full        AdamW on all parameters          lora    AdamW on LoRA of all matrices but the memory's (peft)
table       SGD on the value table           rows    SGD on the 500 or 2000 rows that sparse memory finetuning chooses

All ways that train are taught the same facts in the same words until they recall 95% of them in words of training, or
for 400 steps. In terse text a step tells each new fact once, in prose a document of each new person in fresh words.
"""

import copy
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memlayers.documents import Documents
from memlayers.facts.world import PAD
from memlayers.foreign.groups import param_groups
from memlayers.foreign.taught import NEW, Taught, loss_of, recall, told
from memlayers.optim.sparse_finetuning import Background, choose_rows, count_reads, only_rows

TARGET, MOST, EVERY = 0.95, 400, 5  # recall of new facts to be reached; steps; steps between two measurements of it
BATCHES = 200  # of the background, of 20 rows about old people each


def teach(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    """Teach the new facts. Returns steps and their seconds; recall of `new` and `old` facts in words of training, and
    of `new_held_out` and `old_held_out` in others, None in terse text; `forgotten`, by which share the recall of old
    ones falls, in held-out words where there are any; `bytes` of what has to be kept beside the first model, and mean
    `tokens` of a question.
    """
    before = recalled(taught.model, taught.old, "old")
    if arm == "context":
        asked, found = taught.new_in_context, {"steps": 0, "seconds": 0.0} | before
        documents = lessons(taught, torch.Generator().manual_seed(0))
        found |= recalled(taught.model, asked, "new") | {"bytes": 2 * int(documents.tokens.count_nonzero())}
    else:  # two bytes a token
        asked, found = taught.new, trained(arm, taught, rate)
    tokens = float((asked["training"].tokens[:, :-1] != PAD).sum(dim=1).double().mean())
    name = "old" if before["old_held_out"] is None else "old_held_out"
    forgotten = 1 - found[name] / before[name]
    return {"arm": arm, "rate": rate, "before": before[name], "forgotten": forgotten, "tokens": tokens} | found


def trained(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    generator, seconds = torch.Generator().manual_seed(1), 0.0
    with way(arm, taught, rate) as (model, optimizer):
        for step in range(MOST + 1):
            learnt = recall(model, taught.new["training"]) if step % EVERY == 0 else 0.0
            if learnt >= TARGET or step == MOST:
                break
            began = time.perf_counter()
            loss = loss_of(model, lessons(taught, generator), taught.text)
            if not loss.isfinite():
                break
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds += time.perf_counter() - began
        recalls = recalled(model, taught.new, "new") | recalled(model, taught.old, "old")
        size = delta_bytes(taught.model, model)
    return {"steps": step, "seconds": seconds, "bytes": size} | recalls


def lessons(taught: Taught, generator: torch.Generator) -> Documents:
    """What a step tells of the new people."""
    if taught.text.document == "fact":
        return taught.new["training"]
    return told(taught.text, torch.arange(taught.num_old, taught.num_old + NEW), generator)


def recalled(model: nn.Module, asked: dict[str, Documents], name: str) -> dict[str, Any]:
    """Recall of questions by phrasing, as NAME and NAME_held_out."""
    held_out = recall(model, asked["held_out"]) if "held_out" in asked else None
    return {name: recall(model, asked["training"]), f"{name}_held_out": held_out}


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
        generator = torch.Generator().manual_seed(0)
        counts = count_reads(model, *read(lessons(taught, generator)))
        drawn = torch.randint(taught.num_old, (BATCHES, 20), generator=generator)
        background = Background.of(model, (read(told(taught.text, people, generator)) for people in drawn))
        every = {pool: torch.arange(len(pool.values)) for pool in counts}
        rows = every if arm == "table" else choose_rows(counts, background, int(arm.removeprefix("rows_")))
        with only_rows(model, rows) as tables:
            yield model, torch.optim.SGD(tables, lr=rate)


def read(documents: Documents) -> tuple[Tensor, Tensor]:
    """The tokens that a model reads in these rows, and where they are no padding."""
    tokens = documents.tokens[:, :-1]
    return tokens, tokens != PAD
