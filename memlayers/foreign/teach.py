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
from memlayers.foreign.taught import Taught, loss_of, share_recalled, told
from memlayers.layers.pool import readers
from memlayers.optim.sparse_finetuning import Background, Counts, choose_rows, count_reads, only_rows

TARGET, MOST, EVERY = 0.95, 400, 5  # recall of new facts to be reached; steps; steps between two measurements of it
BATCHES, POSITIONS = 200, 120  # of the background, and tokens of each that are about old people


def teach(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    """Teach the new facts; returns blocks of a record.

    recall, in words of training and, as NAME_held_out, in others (None in terse text): exact and held_out, of new
    facts; before and old, of old ones, before and after. context.tokens: of a question up to its answer, a mean.
    taught: forgotten, by which share of itself recall of old facts falls; steps; delta_bytes, of what has to be kept
    beside the first model; rows of the table that are trained, None in other ways.
    timing: seconds, with the choice of rows and without measurements.
    """
    before = recalled(taught.model, taught.old, "before")
    if not before["before"]:
        raise ValueError("the pretrained model recalls no old fact; accepted: fewer --people")
    if arm == "context":
        told_once = taught.text.stated(taught.new_people, torch.Generator().manual_seed(0)).tokens
        asked, kept = taught.new_in_context, 2 * int((told_once != PAD).sum())  # two bytes a token
        found: dict[str, Any] = {"steps": 0, "delta_bytes": kept, "rows": None}
        seconds, recall = 0.0, recalled(taught.model, taught.old, "old") | recalled(taught.model, asked, "exact")
    else:
        asked, (found, seconds, recall) = taught.new, trained(arm, taught, rate)
    for words in ("", "_held_out"):
        share = before[f"before{words}"]
        found[f"forgotten{words}"] = 1 - recall[f"old{words}"] / share if share else None
    recall["held_out"] = recall.pop("exact_held_out")
    length = asked["training"].answers.long().argmax(dim=1).double().mean()
    recall |= before | {"context": {"tokens": float(length)}}
    return {"recall": recall, "taught": found, "timing": {"seconds": seconds}}


def trained(arm: str, taught: Taught, rate: float) -> tuple[dict[str, Any], float, dict[str, Any]]:
    """taught, seconds and recall of `teach`, for a way that trains."""
    generator, began = torch.Generator().manual_seed(1), time.perf_counter()
    with way(arm, taught, rate) as (model, optimizer, rows):
        seconds = time.perf_counter() - began
        for step in range(MOST + 1):
            learnt = share_recalled(model, taught.new["training"]) if step % EVERY == 0 else 0.0
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
        recall = recalled(model, taught.new, "exact") | recalled(model, taught.old, "old")
        size = delta_bytes(taught.model, model)
    return {"steps": step, "delta_bytes": size, "rows": rows}, seconds, recall


def lessons(taught: Taught, generator: torch.Generator) -> Documents:
    """What a step tells of the new people."""
    if taught.text.document == "fact":
        return taught.new["training"]
    return told(taught.text, taught.new_people, generator)


def recalled(model: nn.Module, asked: dict[str, Documents], name: str) -> dict[str, Any]:
    """Recall of questions by phrasing, as NAME and NAME_held_out."""
    held_out = share_recalled(model, asked["held_out"]) if "held_out" in asked else None
    return {name: share_recalled(model, asked["training"]), f"{name}_held_out": held_out}


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
def way(arm: str, taught: Taught, rate: float) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, int | None]]:
    """Context with a copy of the model, the optimizer of the parameters that an arm trains, and the number of rows if
    those are of the table.
    """
    model = copy.deepcopy(taught.model)
    param_groups(model, tables="dense" if arm == "full" else "sparse")
    if arm == "full":
        yield model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0), None
    elif arm == "lora":
        import peft

        names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        with warnings.catch_warnings():  # peft 0.21 asks transformers 5.24 for a name that is about to change
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=names))
        added = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        yield adapted, torch.optim.AdamW(added, lr=rate, weight_decay=0.0), None
    else:
        rows = {pool: torch.arange(len(pool.values)) for pool in {layer.pool for layer in readers(model)}}
        if arm != "table":
            rows = rows_for(model, taught, int(arm.removeprefix("rows_")))
        with only_rows(model, rows) as tables:
            yield model, torch.optim.SGD(tables, lr=rate), sum(map(len, rows.values()))


def rows_for(model: nn.Module, taught: Taught, top: int) -> Counts:
    """Up to `top` rows of the table that the lessons read more than rows about old people do."""
    generator = torch.Generator().manual_seed(0)
    counts = count_reads(model, *read(lessons(taught, generator)))
    some = torch.arange(min(100, taught.num_old))
    length = float(read(told(taught.text, some, generator))[1].sum()) / len(some)
    drawn = torch.randint(taught.num_old, (BATCHES, max(1, round(POSITIONS / length))), generator=generator)
    background = Background.of(model, (read(told(taught.text, people, generator)) for people in drawn))
    return choose_rows(counts, background, top)


def read(documents: Documents) -> tuple[Tensor, Tensor]:
    """The tokens that a model reads in these rows, and where they are no padding."""
    tokens = documents.tokens[:, :-1]
    return tokens, tokens != PAD
