"""Rounds of local steps and merges, and their measurements.

For any number of clients, each fact is shown equally often in total (a shared fact by each client its part), and each
client takes the steps of a plain run, on its part of the batch. So all cost the same FLOPs, and one client is a plain
run.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlayers.config import RunConfig
from memlayers.federated.clients import SHARED, Client, owners
from memlayers.federated.merging import merge, message_bytes, received
from memlayers.kernels import choose
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.recall.ask import ask
from memlayers.text import Text
from memlayers.training.plan import Plan, plan


class Way(NamedTuple):
    """How clients learn together."""

    merge: str | None  # average, rows, or None: no merging
    is_warm: bool = False  # a server first trains on the shared facts, clients then only on their own
    only_tables: bool = False  # clients train and send tables only; all else stays as the server trained it


WAYS = {
    "alone": Way(None),
    "average": Way("average"),
    "rows": Way("rows"),
    "warm_average": Way("average", is_warm=True),
    "warm_rows": Way("rows", is_warm=True),
    "rows_only": Way("rows", is_warm=True, only_tables=True),
}
STRANGERS = ("before", "stranger_all", "stranger_rows", "peer", "peer_rows")


def ways_of(arm: str, clients: int) -> list[str]:
    """Names of the distinct ways: `rows` needs a table, and with one client there is nothing to merge."""
    names = [name for name, way in WAYS.items() if way.merge != "rows" or arm != "dense"]
    if clients > 1:
        return names
    return list({WAYS[name][1:]: name for name in reversed(names)}.values())[::-1]


def laid_out(config: RunConfig, clients: int, rounds: int, shared: float) -> tuple[Plan, Tensor, int]:
    """The plan of a plain run, the owner (n,) of each subject, and the number of the server's steps in warm ways.

    Raises ValueError for settings that cannot be met.
    """
    if config.world.context.source == "retrieved":  # from a store of every client's facts
        raise ValueError("world.context.source=retrieved: clients share no documents; accepted: none or given")
    chosen = plan(config)
    owner = owners(len(chosen.text.world.facts), clients, shared)
    warm = round(chosen.steps * float((owner == SHARED).double().mean()))
    if not 1 <= rounds <= chosen.steps - warm:
        raise ValueError(f"--rounds={rounds}: clients take {chosen.steps - warm} steps; accepted: 1 to as many")
    if clients > chosen.batch_size:
        raise ValueError(f"--clients={clients}: a step has {chosen.batch_size} documents; accepted: 1 to as many")
    return chosen, owner, warm


def federate(config: RunConfig, name: str, clients: int, rounds: int, shared: float) -> dict[str, Any]:
    """Train in one of WAYS and measure. Raises ValueError for settings that cannot be met, FloatingPointError for a
    loss that is not finite.

    In prose all recall is asked in words that training never uses. As means over clients j, of the model of client j
    after the last merge:
    own, others: on j's facts, and on those of other clients. shared: on facts that all hold.
    Recall on j's facts, of other models:
    before: j's model before the last merge.
    stranger_all: the initial model with all that j sent in the last round. stranger_rows: with only the rows it read.
    peer, peer_rows: another client's model before the last merge, without and with the rows that j read.

    bytes_up, bytes_down: per client and round. bytes: in total, both ways. rows_sent: share of all rows of tables.
    """
    way = WAYS[name]
    chosen, owner, warm = laid_out(config, clients, rounds, shared)
    text = chosen.text
    common, group = beginning(config, chosen, way, owner, warm, clients)
    start, steps = copy.deepcopy(common), chosen.steps - (warm if way.is_warm else 0)
    up = down = 0
    sent: list[float] = []
    recall: dict[str, Any] = {}
    by_rows, is_merged = way.merge == "rows", way.merge is not None and clients > 1
    for round_ in range(rounds):
        for client in group:
            client.train(round((round_ + 1) * steps / rounds) - round(round_ * steps / rounds))
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
    return recall | recalled(text, models, owner) | {
        "bytes_up": up / (clients * rounds),
        "bytes_down": down / (clients * rounds),
        "bytes": up + down,
        "rows_sent": mean(sent),
        "steps": chosen.steps,
        "documents": chosen.batch_size * chosen.steps,
        "flops_per_token": chosen.matched.cost.flops,
        "params": chosen.matched.cost.params,
    }  # fmt: skip


def beginning(
    config: RunConfig, chosen: Plan, way: Way, owner: Tensor, warm: int, clients: int
) -> tuple[Transformer, list[Client]]:
    """The common model before the first round, and the clients with copies of it."""
    text, batch, rule = chosen.text, chosen.batch_size, config.optim.values
    generator, sparse = torch.Generator().manual_seed(config.seed), rule is None or rule.sparse
    vocabulary, kernels = len(text.vocabulary), choose(config.kernels)
    common = build_model(chosen.matched.model, vocabulary, generator, kernels, sparse, text.questions())
    if way.is_warm:
        Client(common, text, config, (owner == SHARED).float(), batch, warm, stream=clients).train(warm)
    if way.only_tables:
        for _, role, parameter in parameters_with_roles(common):
            parameter.requires_grad_(role == "memory_value")
    group, of_shared = [], 0.0 if way.is_warm else 1 / clients
    for j in range(clients):
        weights = (owner == j) + of_shared * (owner == SHARED)
        size = batch // clients + (j < batch % clients)
        steps = chosen.steps - (warm if way.is_warm else 0)
        group.append(Client(copy.deepcopy(common), text, config, weights, size, steps, stream=j))
    return common, group


def recalled(text: Text, models: list[Transformer], owner: Tensor) -> dict[str, float | None]:
    """The recalls own, others and shared of `federate`."""
    of_fact = owner[text.facts[:, 0]]
    hit_by = {model: ask(model, text, text.facts, phrasing_of(text)).exact for model in set(models)}
    hits = [hit_by[model] for model in models]
    own = [share(hit[of_fact == j]) for j, hit in enumerate(hits)]
    others = [share(hit[(of_fact != j) & (of_fact != SHARED)]) for j, hit in enumerate(hits)]
    return {
        "own": mean(own),
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
