"""A Llama with one memory layer knows facts of a world and is taught new ones: what does each way of teaching forget?

python scripts/finetune.py --tune                   learning rates on a seed of their own, then seeds 0 to 2: 5 minutes
python scripts/finetune.py                          with the rates of results/finetune.json: 2 minutes
python scripts/finetune.py --people 300 --seeds 1 --out elsewhere.json

full    AdamW on all parameters          lora    AdamW on LoRA of all matrices but the memory's (peft)
table   SGD on the value table           rows    SGD on the 500 or 2000 rows that sparse memory finetuning chooses

All are taught the same facts in the same words until they recall 95% of them, or for 400 steps. A rate is the best one
that gets there in tuning: the one that keeps most old facts. Needs pip install -e ".[hf]".
"""

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import memlayers
from memlayers.config import BiographiesConfig
from memlayers.documents import Documents
from memlayers.kernels import choose
from memlayers.layers import Memory
from memlayers.optim import RowwiseAdagrad
from memlayers.optim.sparse_finetuning import Background, choose_rows, count_reads, only_rows
from memlayers.studies.cli import fail, verb
from memlayers.text import Text, text_of

FILE = Path(__file__).resolve().parent.parent / "results" / "finetune.json"
NEW, TARGET, MOST = 200, 0.95, 400  # facts to be taught; the recall of them to be reached; steps
BATCHES = 200  # of the background, of 20 old facts each
TUNING_SEED = 11
RATES = {
    "full": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    "lora": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "table": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
    "rows_500": [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],  # as many as in the paper's experiment on facts
    "rows_2000": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
}


class Taught(NamedTuple):
    """A pretrained model, and questions with answers (b, s): old facts, which it knows, and new ones."""

    model: nn.Module
    old: Documents
    new: Documents


def pretrained(people: int, seed: int, steps: int = 400) -> Taught:
    """Train a Llama, whose third feed-forward of four is a memory, on all facts but the new ones."""
    import transformers

    sizes = {"name_parts": [40] * 3, "cardinalities": [64] * 4}
    text = text_of(BiographiesConfig(name="biographies", num_people=people, seed=seed, **sizes))
    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    spread = {"initializer_range": 0.05, "tie_word_embeddings": True}
    config = transformers.LlamaConfig(vocab_size=len(text.vocabulary), **shape, **special, **spread)
    model = transformers.LlamaForCausalLM(config)
    memlayers.swap(model, "model.layers.2.mlp", Memory(num_keys=64, heads=4, topk=8), seed=seed)
    *others, values = memlayers.param_groups(model)
    optimizers = [
        torch.optim.AdamW(others, weight_decay=0.0),
        RowwiseAdagrad(lr=1.0).build(values["params"], choose("auto")),
    ]
    old = questions(text, text.facts[:-NEW])
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizers[0].param_groups:
            group["lr"] = 3e-3 * min(1, step / 50) * (1 - step / steps)
        drawn = torch.randint(len(old.tokens), (256,), generator=generator)
        answered(model, Documents(*(table[drawn] for table in old)))[0].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return Taught(model, old, questions(text, text.facts[-NEW:]))


def questions(text: Text, facts: Tensor) -> Documents:
    return text.probe(facts, "training", torch.Generator().manual_seed(0)).documents


def answered(model: nn.Module, documents: Documents) -> tuple[Tensor, float]:
    """The mean cross-entropy of answers, and the share of documents whose whole answer is the arg max."""
    where, target = documents.answers[:, 1:], documents.tokens[:, 1:]
    logits = model(documents.tokens[:, :-1]).logits
    right = (logits.argmax(dim=-1) == target) | ~where
    return F.cross_entropy(logits[where], target[where]), float(right.all(dim=1).double().mean())


@contextmanager
def way(arm: str, taught: Taught, rate: float) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
    """Context with a copy of the model, and the optimizer of the parameters that an arm trains."""
    model = copy.deepcopy(taught.model)
    memlayers.param_groups(model, tables="dense" if arm == "full" else "sparse")
    if arm == "full":
        yield model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    elif arm == "lora":
        import peft

        names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        with warnings.catch_warnings():  # peft 0.21 asks transformers 5.24 for a name that is about to change
            warnings.simplefilter("ignore", FutureWarning)
            adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=names))
        trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        yield adapted, torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    else:
        counts = count_reads(model, taught.new.tokens[:, :-1])
        drawn = torch.randint(len(taught.old.tokens), (BATCHES, 20), generator=torch.Generator().manual_seed(0))
        background = Background.of(model, ((taught.old.tokens[rows, :-1], None) for rows in drawn))
        every = {pool: torch.arange(len(pool.values)) for pool in counts}
        rows = every if arm == "table" else choose_rows(counts, background, int(arm.removeprefix("rows_")))
        with only_rows(model, rows) as tables:
            yield model, torch.optim.SGD(tables, lr=rate)


def teach(arm: str, taught: Taught, rate: float) -> dict[str, Any]:
    """Teach the new facts; returns steps, recall of new and old facts, and the share of known old ones that is lost."""
    before = answered(taught.model, taught.old)[1]
    with way(arm, taught, rate) as (model, optimizer):
        for step in range(MOST + 1):
            loss, recall = answered(model, taught.new)
            if recall >= TARGET or step == MOST or not loss.isfinite():
                break
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        kept = answered(model, taught.old)[1]
    recalls = {"before": before, "old": kept, "new": recall, "forgotten": 1 - kept / before}
    return {"arm": arm, "rate": rate, "steps": step} | recalls


def tuned(people: int, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    taught = pretrained(people, TUNING_SEED)
    found = []
    for arm, rates in RATES.items():
        for rate in rates:
            found.append(teach(arm, taught, rate))
            tell(f"{arm} {rate:g}: {found[-1]}")
    return found


def best_rates(tuning: list[dict[str, Any]]) -> dict[str, float]:
    """The best rate of each arm: of those that reach the target, the one that forgets least; else what learns most."""
    by_arm = {arm: [run for run in tuning if run["arm"] == arm] for arm in RATES}
    best = {arm: max(runs, key=lambda run: (min(run["new"], TARGET), run["old"])) for arm, runs in by_arm.items()}
    return {arm: run["rate"] for arm, run in best.items()}


def main() -> int:
    from pandas import DataFrame

    from memlayers.studies.table import estimate, interval
    from memlayers.training.record import code_version, machine, write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--people", type=int, default=1050, help="of four facts each; the last 50 are new")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    console = Console(highlight=False, markup=False)
    try:
        if given.people < 100 or given.seeds < 1:
            raise ValueError(f"--people={given.people} --seeds={given.seeds}; accepted: 100 and 1, or more")
        tuning = tuned(given.people, console.print) if given.tune else json.loads(FILE.read_text())["tuning"]
        rates, runs = best_rates(tuning), []
        for seed in range(given.seeds):
            taught = pretrained(given.people, seed)
            runs += [{"seed": seed} | teach(arm, taught, rate) for arm, rate in rates.items()]
        content = {"tuning": tuning, "runs": runs, "people": given.people, "new_facts": NEW, "target": TARGET}
        write_json(given.out, content | {"code": code_version(), "machine": machine(torch.get_num_threads())})
    except (ValueError, OSError, ImportError) as error:
        fail(ValueError(error))
        return 2
    frame, table = DataFrame(runs), Table(box=None, pad_edge=False)
    for name in ("arm", "rate", "steps", "new", "forgotten"):
        table.add_column(name)
    for arm, own in frame.groupby("arm", sort=False):
        shown = [interval(estimate(name, own[name]), name) for name in ("steps", "new", "forgotten")]
        table.add_row(str(arm), f"{rates[str(arm)]:g}", *shown)
    console.print(table)
    return 0


if __name__ == "__main__":
    verb(main)
