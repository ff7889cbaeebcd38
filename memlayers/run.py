"""One run from its configuration to its record."""

import ctypes
import dataclasses
import sys
import time
from typing import Any

import lightning
import torch

from memlayers.checkpoint import Checkpointer, read_checkpoint
from memlayers.config import OptimConfig
from memlayers.config.run import RunConfig, decisive, digest
from memlayers.cost import Matched, refuse_too_large, solve
from memlayers.facts import build_world
from memlayers.kernels import choose, in_use
from memlayers.layers.feedforward import Workload
from memlayers.lit import Batches, FactLearner, RecallProbe
from memlayers.measure import measure
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.optim import peak_rate, rule_of
from memlayers.plateau import left_plateau
from memlayers.progress import RunProgress, terminal_bar
from memlayers.record import Record, code_version, finished, machine, record_path, write_json
from memlayers.text import Text
from memlayers.trainer import build_trainer, fit


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is decided before a tensor of the model is allocated."""

    text: Text
    work: Workload
    matched: Matched
    batch_size: int  # documents a step
    steps: int
    exposures: float  # mean showings of a fact in the whole run

    @property
    def tokens(self) -> float:
        """Input positions of the whole run."""
        return self.steps * self.batch_size * self.work.sequence


def plan(config: RunConfig) -> Plan:
    """World, text, the size that matches, the number of steps. Raises ValueError for what cannot be."""
    config.validate()
    text = Text(build_world(config.world), config.world.text, config.world.document)
    sample = text.sample(4096, torch.Generator().manual_seed(0))
    positions = (sample.tokens[:, 1:] != 0).sum().item() / len(sample.tokens)
    scored = sample.answers[:, 1:].sum().item() / len(sample.tokens) if config.training.loss == "answers" else positions
    batch_size = max(1, round(config.training.batch_tokens / positions))
    work = Workload(positions, scored, round(positions * batch_size))
    matched = solve(config.model, config.match, len(text.vocabulary), work)
    matched.model.validate()
    a_step = text.mean_exposures * batch_size
    steps = round((config.training.steps or config.training.exposures / a_step) * matched.steps)
    return Plan(text, work, matched, batch_size, max(1, steps), max(1, steps) * a_step)


def run(config: RunConfig) -> Record:
    """Train, measure and write the record, unless it is there already. A failure is a record too, and is raised.

    Raises ValueError before any training for settings that cannot be met.
    """
    config.validate()  # the record is named by it
    done = finished(config)
    if done is not None:
        return done
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    path = record_path(config)
    record: Record = {
        "study": config.study,
        "arm": config.arm,
        "world": config.world.name,
        "seed": config.seed,
        "digest": digest(config),
        "config": decisive(config),
        "code": code_version(),
        "machine": machine(config.threads),
        "status": "failed",
        "error": None,
    }
    try:
        record["machine"]["kernels"] = in_use(config.kernels)
        if config.checkpoint is not None:
            read_checkpoint(config)  # before the world is built: a mistake is told at once
        chosen = plan(config)
        refuse_too_large(chosen.matched.model, config.optim.values.rule)
        if config.progress == "auto":
            for note in chosen.text.world.notes:
                print(f"note: {note}", flush=True)
        with RunProgress(path, config, chosen.steps) as progress:  # refuses a folder that cannot be written
            record |= train(config, chosen, progress)
        record["status"] = "ok"
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        if record["status"] == "ok" or record["error"] is not None:  # not after Ctrl-C: nothing is known then
            write_json(path, record)
    return record


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees for the next one, up to 2 GiB, instead of asking for cleared pages each time.

    This is for the whole process, whatever MALLOC_TRIM_THRESHOLD_ says. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the most that is accepted; larger tensors are mapped one by one
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def train(config: RunConfig, chosen: Plan, progress: RunProgress) -> dict[str, Any]:
    """The part of a record that training fills."""
    text, matched = chosen.text, chosen.matched
    kernels = choose(config.kernels)
    model = build_model(matched.model, len(text.vocabulary), torch.Generator().manual_seed(config.seed), kernels)
    learner = FactLearner(model, config.optim, config.training.loss, chosen.steps, kernels)
    batches = Batches(text, chosen.batch_size, chosen.steps, (config.world.seed, config.seed))
    probe = RecallProbe(text, batches, config.training.probes, config.training.max_probed_facts)
    callbacks: list[lightning.Callback] = [probe, progress]
    if config.progress == "auto":
        callbacks.append(terminal_bar(round(chosen.work.tokens)))
    if config.save_checkpoint:
        callbacks.append(Checkpointer(config, max(1, chosen.steps // config.training.probes)))
    if config.checkpoint is not None:
        batches.first = read_checkpoint(config)
    fit(build_trainer(config, chosen.steps, callbacks), learner, batches, config.checkpoint)
    seconds = time.perf_counter() - probe.began - probe.seconds
    model.eval()
    recall = measure(model, text, chosen.steps * chosen.batch_size)
    tokens = chosen.tokens
    left = left_plateau([(point["exposures"], point["recall"]) for point in probe.curve], recall["floor"])
    flops = matched.cost.flops * tokens
    return {
        "facts": {
            "relations": [dataclasses.asdict(one) for one in text.world.statistics()],
            "joint_entropy": text.world.joint_entropy(),
            "notes": list(text.world.notes),
        },
        "model": dataclasses.asdict(matched.model) | {"num_tokens": len(text.vocabulary)},
        "match": {"by": config.match.by, "target": matched.target, "reached": matched.reached},
        "cost": dataclasses.asdict(matched.cost)
        | {
            "flops_per_token": matched.cost.flops,
            "training_flops": flops,
            "params_in_pools": sum(p.numel() for _, role, p in parameters_with_roles(model) if role == "memory_value"),
        },
        "training": {
            "steps": chosen.steps,
            "batch_size": chosen.batch_size,
            "tokens": tokens,
            "exposures": chosen.exposures,
            "final_loss": learner.logged_loss,
            "curve": probe.curve,
            "plateau": None if left is None else {"exposures": left, "flops": flops * left / chosen.exposures},
        },
        "optimizer": optimizer_of_roles(model, config.optim),
        "recall": recall | {"bits_per_parameter": recall["stored_bits"] / matched.cost.params},
        "timing": {"seconds": seconds, "probe_seconds": probe.seconds, "tokens_per_second": tokens / seconds},
    }


def optimizer_of_roles(model: Transformer, optim: OptimConfig) -> list[dict[str, Any]]:
    """What each role was trained by: its rule, and the peak of its rate."""
    roles = [role for _, role, _ in parameters_with_roles(model)]
    sparse = all(pool.sparse for pool in model.pools)
    return [
        {"role": role, "tensors": roles.count(role), "rule": rule_of(role, optim, sparse), "lr": peak_rate(role, optim)}
        for role in sorted(set(roles))
    ]
