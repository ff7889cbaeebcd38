"""A Llama with one memory layer knows facts of a world and is taught new ones: what does each way of teaching forget?

python scripts/finetune.py                                  learning rates on a seed of their own, then seeds 0 to 2
python scripts/finetune.py --world biographies_prose        in prose, also asked in words that training never uses
python scripts/finetune.py --people 300 --seeds 1 --out elsewhere

The ways, context, full, lora, table and rows, are those of memlayers/foreign/teach.py. The rate of a way is the one
that forgets least of those that reach 95% of the new facts in tuning, or learns most where none does. Each trial and
run is written as it ends, and the same command goes on from there. Needs pip install -e ".[hf]".
"""

import argparse
import hashlib
import json
import shlex
import sys
from functools import lru_cache
from pathlib import Path

from rich.console import Console

from memlayers.checks import at_least
from memlayers.config.run import ReportConfig
from memlayers.foreign.taught import NEW, Taught, pretrained
from memlayers.foreign.teach import MOST, TARGET, teach
from memlayers.studies.cli import verb
from memlayers.studies.files import checkout
from memlayers.studies.frame import READOUTS
from memlayers.studies.layout import add_command
from memlayers.training.process import locked, threads
from memlayers.training.provenance import code_version, machine
from memlayers.training.record import SCHEMA, Record, keep_record, read_record

RESULTS = Path(checkout()) / "results" / "local"
STUDY, TUNING = "beyond_customisation", "customisation_rates"
REPORT = ReportConfig(
    question="""A trained model is to know the facts of 50 new people. Is it told them before each question
(context: a document of the person who is asked about, whom nobody has to search for; old facts are asked as
before), or taught: all weights (full), low-rank changes of its matrices (lora), the value table of its one memory
layer (table), or up to 500 or 2,000 rows of it that new facts read more than old ones do (rows_500, rows_2000)?
Teaching ends when 95% of the new facts are recalled in words of training, which is measured every five steps, or
after 400 steps. recall and held_out are of new facts, before and old of all old ones, at first and then, in words
of training and, in prose, in words that it never uses (held_out); forgotten is the relative fall in recall of old
ones. delta_bytes is what must be stored beside the first model, question_tokens the length of a question up to its
answer; seconds are those of steps and of choosing rows.""",
    literature="""Sparse memory finetuning (Lin et al. 2025) of 1,000 facts: F1 on NaturalQuestions falls by 89% after
full finetuning, 71% after LoRA, 11% where only rows are trained that the new facts read and other text does not.""",
    reference={"arm": "full"},
    rows=["arm", "teach.rate"],
    readouts=[
        *("recall", "held_out", "before", "before_held_out", "old", "old_held_out", "forgotten", "forgotten_held_out"),
        *("steps", "rows", "delta_bytes", "question_tokens", "seconds"),
    ],
    x="delta_bytes",
    y="forgotten",
)
OF_RATES = ReportConfig(
    question="""At which rate does each way of teaching forget least, of the rates at which 95% of the new facts are
learnt, or else learn most? On a seed of its own.""",
    reference={},
    rows=REPORT.rows,
    readouts=["recall", "held_out", "forgotten", "forgotten_held_out", "steps", "seconds"],
    x="recall",
    y="forgotten",
)
PEOPLE = {"biographies": 1050, "biographies_prose": 250}
TUNING_SEED = 11
RATES = {
    "context": [0.0],
    "full": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3],
    "lora": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "table": [1.0, 3.0, 10.0, 30.0, 100.0, 300.0],
    "rows_500": [10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0],  # as many as in the paper's experiment on facts
    "rows_2000": [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
}
BY_SGD = ("table", "rows_500", "rows_2000")
OF_PROSE = 100  # times the rates of SGD: the loss is a mean over all tokens, of which few are answers
SHOWN = ("steps", "recall", "held_out", "forgotten", "forgotten_held_out")


def rates_of(world: str) -> dict[str, list[float]]:
    """The rates that are tried, by way."""
    scale = OF_PROSE if world == "biographies_prose" else 1
    return {way: [rate * (scale if way in BY_SGD else 1) for rate in rates] for way, rates in RATES.items()}


def best_rates(tuning: list[Record]) -> dict[str, float]:
    """The best rate of each way: of those that reach the target, the one that forgets least; else what learns most."""

    def goodness(run: Record) -> tuple[float, float]:
        return min(run["recall"]["exact"], TARGET), -run["taught"]["forgotten"]

    ways = {way: [run for run in tuning if run["arm"] == way] for way in RATES}
    return {way: max(runs, key=goodness)["config"]["teach"]["rate"] for way, runs in ways.items()}


def measure(world: str, people: int, seeds: int, out: Path, console: Console) -> None:
    """Do the trials, and then the runs, that are not below `out`; a record of each is written as it ends."""

    @lru_cache(maxsize=1)
    def model_of(seed: int) -> Taught:
        return pretrained(world, people, seed)

    def done(study: str, seed: int, way: str, rate: float) -> Record:
        config = {
            "world": {"name": world, "num_people": people},
            "teach": {"rate": rate, "target": TARGET, "most_steps": MOST},
        }
        digest = hashlib.sha256(json.dumps([way, config], sort_keys=True).encode()).hexdigest()[:12]
        path = out / study / world / f"{way}-s{seed}-{digest}.json"
        if (known := read_record(path)) is not None:
            return known
        record = {"schema": SCHEMA, "study": study, "arm": way, "world": world, "seed": seed, "axes": {}}
        record |= {"digest": digest, "config": config, "code": code_version(), "machine": machine(1)}
        record |= teach(way, model_of(seed), rate) | {"status": "ok", "error": None}
        keep_record(path, record)
        found = {**record["recall"], **record["taught"]}
        numbers = {name: found[READOUTS[name].rpartition(".")[2]] for name in SHOWN}
        words = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items() if number is not None)
        console.print(f"seed {seed}, {way} at {rate:g}: {words}")
        return record

    grid = [(way, rate) for way, rates in rates_of(world).items() for rate in rates]
    best = best_rates([done(TUNING, TUNING_SEED, *one) for one in grid])
    for seed in range(seeds):
        for way, rate in best.items():
            done(STUDY, seed, way, rate)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="biographies", choices=list(PEOPLE))
    parser.add_argument("--people", type=int, help=f"the last {NEW} are new; default: 1050, in prose 250")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of both studies; default: results/local")
    given = parser.parse_args()
    people = PEOPLE[given.world] if given.people is None else given.people
    try:
        at_least("--people", people, 2 * NEW)
        at_least("--seeds", given.seeds, 1)
        if given.seeds > TUNING_SEED:
            raise ValueError(f"--seeds={given.seeds}: seed {TUNING_SEED} is for tuning; accepted: up to {TUNING_SEED}")
        with locked(given.out / STUDY / given.world), threads(1):
            for study, report in ((TUNING, OF_RATES), (STUDY, REPORT)):
                add_command(given.out / study, report, shlex.join(["python", "scripts/finetune.py", *sys.argv[1:]]))
            measure(given.world, people, given.seeds, given.out, Console(highlight=False, markup=False))
    except ImportError as error:
        raise ValueError(f'finetune needs transformers ({error}); accepted: pip install "memlayers[hf]"') from None
    print(given.out / STUDY)
    return 0


if __name__ == "__main__":
    verb(main)
