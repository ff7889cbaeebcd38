"""One run from its configuration to its record."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch

from memlayers.config import OptimConfig, RunConfig
from memlayers.config.digest import NAMES_AND_PLACES, digest, settings
from memlayers.cost import refuse_too_large
from memlayers.kernels import choose, implementations_used, selected_implementation
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.optim.groups import peak_rate, rule_of
from memlayers.recall.plateau import left_plateau
from memlayers.training import ranks
from memlayers.training.ahead import Ahead
from memlayers.training.checkpoint import Checkpointer, processes_kept, step_kept
from memlayers.training.checkpoint_files import checkpoint_path, delete_checkpoint, tables_path
from memlayers.training.divergence import Diverged, noticed
from memlayers.training.federated import federate
from memlayers.training.learner import Batches, FactLearner
from memlayers.training.plan import Plan, described, plan
from memlayers.training.probe import FinalMeasurement, RecallProbe
from memlayers.training.process import locked, threads
from memlayers.training.progress import RunProgress, TerminalBar, can_redraw
from memlayers.training.provenance import code_version, machine
from memlayers.training.record import SCHEMA, Record, check_writable, finished, keep_record, record_path
from memlayers.training.refusals import refuse_device, room_for
from memlayers.training.rounding import rounded_again, storage, trained_already
from memlayers.training.saved_model import save
from memlayers.training.teacher import teacher_of
from memlayers.training.trainer import build_trainer, fit


def run(config: RunConfig) -> Record:
    """Train, measure and write the record, unless it exists. A failure is recorded too, and raised.

    Waits while another process has the same run. Raises ValueError before training for settings that cannot be met.
    """
    config.validate()  # before the record's path, which follows from it
    ranks.join(config.trainer)
    done = ranks.broadcast_from_rank0(lambda: finished(config))
    if done is not None:
        return done
    path = record_path(config)
    ranks.broadcast_from_rank0(lambda: check_writable(path.parent))
    with locked(path) if ranks.is_first() else nullcontext():
        return ranks.broadcast_from_rank0(lambda: finished(config)) or run_alone(config, path)


def run_alone(config: RunConfig, path: Path) -> Record:
    """The run itself, resumed if it has a checkpoint; the caller holds the lock."""
    record: Record = {
        "schema": SCHEMA,
        "study": config.study,
        "arm": config.arm,
        "world": config.world.name,
        "seed": config.seed,
        "axes": config.axes,
        "digest": digest(config),
        "config": {
            key: value
            for key, value in settings(config).items()
            if key not in (*NAMES_AND_PLACES, "kernels", "seed", "progress")
        },
        "code": code_version(),
        "machine": machine(config.threads) | ({"processes": ranks.count()} if ranks.count() > 1 else {}),
        "status": "failed",
        "error": None,
    }
    try:
        # Before a world is built: raises for kernels that this machine lacks, and for a checkpoint of other kernels.
        selected_implementation(config.kernels)
        first = ranks.broadcast_from_rank0(lambda: step_kept(config))
        here = json.loads(json.dumps({"code": record["code"], "machine": record["machine"]}))  # as a checkpoint has it
        earlier = [] if first is None else ranks.broadcast_from_rank0(lambda: processes_kept(config))
        if any(one != here for one in earlier):  # else the record's code and machine are those of the whole run
            record["earlier"] = [one for one in earlier if one != here]
        chosen = plan(config)
        if config.optim.values is not None:
            ranks.broadcast_from_rank0(lambda: refuse_too_large(*room_for(config, chosen)))
        if config.progress == "auto" and ranks.is_first():
            for note in chosen.text.world.notes:
                print(f"note: {note}", flush=True)
        with threads(config.threads), RunProgress(path, config, chosen.steps, round(chosen.work.tokens)) as progress:
            if config.federated.way is None:
                record |= train(config, chosen, progress, first or 0, [*earlier, here])
            else:
                record |= federate(config, chosen, progress.reached)
        record["machine"]["kernels"] = record.pop("kernels")
        record["status"] = "ok"
    except Exception as error:
        record["error"] = f"{type(error).__name__}: {error}"
        if isinstance(error, Diverged):
            record["diverged"] = error.noticed | {"checkpoint": ranks.broadcast_from_rank0(lambda: step_kept(config))}
        raise
    finally:
        known = record["status"] == "ok" or record["error"] is not None  # false after Ctrl-C
        if known and ranks.is_first():
            keep_record(path, record)
    ranks.broadcast_from_rank0(lambda: delete_checkpoint(config))
    return record


def train(
    config: RunConfig, chosen: Plan, progress: RunProgress, first: int, processes: list[dict[str, Any]]
) -> dict[str, Any]:
    """Train from step `first` on and measure; returns the record's blocks with the results. `processes` are the code
    and the machine of each process that trains this run, this one last.
    """
    text, matched = chosen.text, chosen.matched
    kernels = choose(config.kernels)
    teacher = teacher_of(config, text, kernels)
    batches = Batches(text, chosen.batch_size, chosen.steps, (config.world.seed, config.seed))
    probe = RecallProbe(text, batches, config.training.probes, config.training.max_probed_facts)
    end = FinalMeasurement(text, chosen.steps * chosen.batch_size, probe, config, teacher)
    generator = torch.Generator().manual_seed(config.seed)
    sparse = config.optim.values is None or config.optim.values.sparse
    vocabulary, shards = len(text.vocabulary), config.shard_tables
    model = build_model(matched.model, vocabulary, generator, kernels, sparse, text.questions(), shards)
    if (other := trained_already(config)) is not None:
        return rounded_again(config, model, text, end, other)
    learner = FactLearner(model, config.optim, config.training.loss, chosen.steps, kernels, config.quantize, teacher)
    learner.shards_at = tables_path(checkpoint_path(config), first)
    minutes = config.checkpoint_minutes
    keeper = Checkpointer(config, None if minutes is None else 60 * minutes, first, processes)
    callbacks: list[lightning.Callback] = [probe, progress, keeper]
    if config.progress == "auto" and ranks.is_first() and can_redraw():
        callbacks.append(TerminalBar(progress))
    batches.first = first
    trainer = build_trainer(config, chosen.steps, first, [*callbacks, end])
    device = trainer.strategy.root_device.type
    refuse_device(device, config.kernels, model)
    fit(trainer, learner, Ahead(batches, pinned=True) if device == "cuda" else batches, keeper)
    recall = end.recall or end.measured(model)
    seconds = end.seconds or probe.before - probe.seconds  # the latter where the last step was that of a checkpoint
    if not math.isfinite(recall["stored_bits"]):
        about = noticed(model, chosen.steps - 1, learner.logged_loss)
        raise Diverged("the model is not finite after its last step", about)
    if config.save_model:
        save(model, text, config)
    tokens = chosen.tokens
    left = left_plateau([(point["exposures"], point["recall"]) for point in probe.curve], recall["floor"])
    flops = matched.cost.flops * tokens
    taught = {} if teacher is None else teacher.blocks(chosen.work, tokens, flops)
    known = described(config, chosen)
    return (
        taught
        | known
        | {
            "kernels": implementations_used(kernels),
            "cost": known["cost"]
            | {"params_in_pools": sum(len(pool.values) * pool.d_value for pool in model.tables())}
            | taught.get("cost", {}),
            "training": known["training"]
            | {
                "final_loss": learner.logged_loss,
                "curve": probe.curve,
                "plateau": None if left is None else {"exposures": left, "flops": flops * left / chosen.exposures},
            },
            "optimizer": optimizer_of_roles(model, config.optim),
            "recall": recall | {"bits_per_parameter": recall["stored_bits"] / matched.cost.params},
            "storage": storage(model, config.quantize, recall),
            "timing": {
                "seconds": seconds,
                "probe_seconds": probe.seconds,
                "tokens_per_second": tokens / seconds if seconds > 0 else None,
            },
        }
    )


def optimizer_of_roles(model: Transformer, optim: OptimConfig) -> list[dict[str, Any]]:
    """The update rule and the peak learning rate of each role."""
    roles = [role for _, role, parameter in parameters_with_roles(model) if parameter.requires_grad]
    return [
        {"role": role, "tensors": roles.count(role), "rule": rule_of(role, optim), "lr": peak_rate(role, optim)}
        for role in sorted(set(roles))
    ]
