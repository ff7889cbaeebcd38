"""Rounds of local steps and merges, and their measurements.

For any number of clients, each fact is shown equally often in total (a shared fact by each client its part), and each
client takes the steps of a plain run, on its part of the batch. So all cost the same FLOPs, and one client is a plain
run.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from memlayers.config import RunConfig
from memlayers.config.federated import WAYS
from memlayers.kernels import Kernels, choose, implementations_used
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.recall.ask import ask
from memlayers.text import Text
from memlayers.training.federated.clients import SHARED, Client, owners
from memlayers.training.federated.merging import merge, message_bytes, received
from memlayers.training.plan import Plan, described

STRANGERS = ("before", "stranger_all", "stranger_rows", "peer", "peer_rows")


def laid_out(config: RunConfig, chosen: Plan) -> tuple[Tensor, int]:
    """The owner (n,) of each subject, and the number of the server's steps in warm ways.

    Raises ValueError for settings that cannot be met.
    """
    own = config.federated
    owner = owners(len(chosen.text.world.facts), own.clients, own.shared)
    warm = round(chosen.steps * float((owner == SHARED).double().mean()))
    weights = chosen.text.world.weights[chosen.text.world.is_told]
    if not torch.allclose(weights, weights.mean()):
        raise ValueError(
            f"federated.way={own.way}: clients take equal steps, and facts of this world are not told "
            "equally often; accepted: world.zipf=0, or a file without weights"
        )
    if (most := chosen.steps - (warm if WAYS[str(own.way)].is_warm else 0)) < own.rounds:
        raise ValueError(f"federated.rounds={own.rounds}: clients take {most} steps; accepted: 1 to as many")
    if own.clients > chosen.batch_size:
        raise ValueError(
            f"federated.clients={own.clients}: a step has {chosen.batch_size} documents; accepted: 1 to as many"
        )
    return owner, warm


def federate(config: RunConfig, chosen: Plan, done: Callable[[int], None]) -> dict[str, Any]:
    """Train in the way of `config.federated` and measure; returns the blocks of the record. Raises ValueError
    for settings that cannot be met, Diverged for a model that is not finite. `done` is told the steps so far.

    In prose all recall but `exact` is asked in words that training never uses. As means over clients j, of the model of
    client j after the last merge:
    own: on j's facts; again as exact, in words of training, and in prose as held_out.
    others: on those of other clients. shared: on facts that all hold.
    Recall on j's facts, of other models:
    before: j's model before the last merge.
    stranger_all: the initial model with all that j sent in the last round. stranger_rows: with only the rows it read.
    peer, peer_rows: another client's model before the last merge, without and with the rows that j read.

    sent: bytes up and down, per client and round; bytes in total, both ways; rows, the share of all rows of tables.
    timing: seconds of all, with merges and questions.
    """
    began = time.perf_counter()
    way, clients, rounds = WAYS[str(config.federated.way)], config.federated.clients, config.federated.rounds
    owner, warm = laid_out(config, chosen)
    text, kernels = chosen.text, choose(config.kernels)
    common, group = beginning(config, chosen, owner, warm, kernels)
    start, steps = copy.deepcopy(common), chosen.steps - (warm if way.is_warm else 0)
    up = down = 0
    sent: list[float] = []
    recall: dict[str, Any] = {}
    by_rows, is_merged = way.merge == "rows", way.merge is not None and clients > 1
    for round_ in range(rounds):
        for client in group:
            client.train(round((round_ + 1) * steps / rounds) - round(round_ * steps / rounds))
        done(chosen.steps - steps + round((round_ + 1) * steps / rounds))
        if round_ + 1 == rounds:
            recall |= strangers(text, start, group, owner, whole=not by_rows)
        if not is_merged:
            continue
        rows = [client.reads for client in group]
        union = [torch.stack(reads).sum(dim=0) for reads in zip(*rows, strict=True)]
        up += sum(
            message_bytes(common, reads if by_rows else None, beside=2) for reads in rows
        )  # a row's index and its number of reads
        down += clients * message_bytes(common, union if by_rows else None, beside=1)
        sent += [float((table > 0).double().mean()) for reads in rows for table in reads if by_rows]
        merge(common, group, by_rows)
    models = [common] * clients if is_merged else [client.model for client in group]
    return described(config, chosen) | {
        "kernels": implementations_used(kernels),
        "recall": recall | recalled(text, models, owner),
        "sent": {
            "up": up / (clients * rounds),
            "down": down / (clients * rounds),
            "bytes": up + down,
            "rows": mean(sent),
        },
        "timing": {"seconds": time.perf_counter() - began},
    }


def beginning(
    config: RunConfig, chosen: Plan, owner: Tensor, warm: int, kernels: Kernels
) -> tuple[Transformer, list[Client]]:
    """The common model before the first round, and the clients with copies of it."""
    way, clients = WAYS[str(config.federated.way)], config.federated.clients
    text, batch, rule = chosen.text, chosen.batch_size, config.optim.values
    generator, sparse = torch.Generator().manual_seed(config.seed), rule is None or rule.sparse
    common = build_model(chosen.matched.model, len(text.vocabulary), generator, kernels, sparse, text.questions())
    if way.is_warm:
        Client(common, text, config, (owner == SHARED).float(), batch, warm, clients, kernels).train(warm)
    if way.only_tables:
        for _, role, parameter in parameters_with_roles(common):
            parameter.requires_grad_(role == "memory_value")
    group, of_shared = [], 0.0 if way.is_warm else 1 / clients
    for j in range(clients):
        weights = (owner == j) + of_shared * (owner == SHARED)
        size = batch // clients + (j < batch % clients)
        steps = chosen.steps - (warm if way.is_warm else 0)
        group.append(Client(copy.deepcopy(common), text, config, weights, size, steps, j, kernels))
    return common, group


def recalled(text: Text, models: list[Transformer], owner: Tensor) -> dict[str, float | None]:
    """The recalls exact, held_out, own, others and shared of `federate`."""
    of_fact = owner[text.facts[:, 0]]

    def asked(phrasing: str) -> tuple[list[Tensor], float | None]:
        """Which facts the model of each client knows, and the mean of what it knows of its own."""
        hit_by = {model: ask(model, text, text.facts, phrasing).exact for model in set(models)}
        hits = [hit_by[model] for model in models]
        return hits, mean([share(hit[of_fact == j]) for j, hit in enumerate(hits)])

    hits, own = asked(phrasing_of(text))
    others = [share(hit[(of_fact != j) & (of_fact != SHARED)]) for j, hit in enumerate(hits)]
    in_prose = text.style == "prose"
    return {
        "exact": asked("training")[1] if in_prose else own,
        "held_out": own if in_prose else None,
        "own": own,
        "others": mean(others) if len(models) > 1 else None,
        "shared": mean([share(hit[of_fact == SHARED]) for hit in hits]),
    }


def strangers(text: Text, start: Transformer, group: list[Client], owner: Tensor, whole: bool) -> dict[str, Any]:
    """The recalls before, stranger_all, stranger_rows, peer and peer_rows of `federate`."""
    shares_by_name: dict[str, list[float]] = {name: [] for name in STRANGERS}
    for j, client in enumerate(group):
        facts, peer = text.facts[owner[text.facts[:, 0]] == j], group[j - 1].model
        models = {"before": client.model, "stranger_all": received(start, client, whole=whole, others=True)}
        if start.tables():
            models["stranger_rows"] = received(start, client, whole=False, others=False)
        if len(group) > 1:
            models["peer"] = peer
            if start.tables():
                models["peer_rows"] = received(peer, client, whole=False, others=False)
        for name, model in models.items():
            shares_by_name[name].append(share(ask(model, text, facts, phrasing_of(text)).exact))
    return {name: mean(shares) for name, shares in shares_by_name.items()}


def phrasing_of(text: Text) -> str:
    """In which words clients are asked."""
    return "held_out" if text.style == "prose" else "training"


def share(hits: Tensor) -> float:
    return float(hits.double().mean())


def mean(shares: list[float]) -> float | None:
    return sum(shares) / len(shares) if shares else None
