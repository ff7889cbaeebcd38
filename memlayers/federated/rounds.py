"""Rounds of local steps and merges, and what came of them.

However many clients there are, each fact is shown as often in all, a shared one by each client its part; and each takes
the steps of a plain run, on its part of the batch. So all cost the same FLOPs, and one client alone is a plain run.
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

    merge: str | None  # average or rows; None: each for itself
    is_warm: bool = False  # first a server trains a model on the shared facts, then clients train it on their own alone
    only_tables: bool = False  # all other weights stay as the server trained them, and are not sent


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
    """Names of the ways that differ: rows need a table, and one client has nothing to merge."""
    names = [name for name, way in WAYS.items() if way.merge != "rows" or arm != "dense"]
    if clients > 1:
        return names
    return list({WAYS[name][1:]: name for name in reversed(names)}.values())[::-1]


def laid_out(config: RunConfig, clients: int, rounds: int, shared: float) -> tuple[Plan, Tensor, int]:
    """The plan of a plain run, who holds which subject (n,), and how many of the steps are the server's if it begins.

    Raises ValueError for what cannot be.
    """
    chosen = plan(config)
    owner = owners(len(chosen.text.world.facts), clients, shared)
    warm = round(chosen.steps * float((owner == SHARED).double().mean()))
    if not 1 <= rounds <= chosen.steps - warm:
        raise ValueError(f"--rounds={rounds}: clients take {chosen.steps - warm} steps; accepted: 1 to as many")
    if clients > chosen.batch_size:
        raise ValueError(f"--clients={clients}: a step has {chosen.batch_size} documents; accepted: 1 to as many")
    return chosen, owner, warm


def federate(config: RunConfig, name: str, clients: int, rounds: int, shared: float) -> dict[str, Any]:
    """Train in one of WAYS. Raises ValueError for what cannot be, FloatingPointError for a loss that is not finite.

    Shares of facts that are recalled, each a mean over clients j, by the model that a client has after the last merge:
    own, others: of j's own facts and of other clients' own. shared: of those that all hold.
    before: own ones, by j's model before the last merge.
    Of j's own facts again, by a stranger with what j sent in the last round, before any merge:
    stranger_all: by the first model, with all of it. stranger_rows: with the rows that j read and nothing else.
    peer, peer_rows: by another client's model, without those rows and with them.

    bytes_up, bytes_down: of a client and round. bytes: of all, both ways. rows_sent: share of all rows of tables.
    """
    way = WAYS[name]
    chosen, owner, warm = laid_out(config, clients, rounds, shared)
    text = chosen.text
    common, group = beginning(config, chosen, way, owner, warm, clients)
    start, steps = copy.deepcopy(common), chosen.steps - (warm if way.is_warm else 0)
    up = down = 0
    sent: list[float] = []
    found: dict[str, Any] = {}
    by_rows, is_merged = way.merge == "rows", way.merge is not None and clients > 1
    for turn in range(rounds):
        for one in group:
            one.train(round((turn + 1) * steps / rounds) - round(turn * steps / rounds))
        if turn + 1 == rounds:
            found |= strangers(text, start, group, owner, whole=not by_rows)
        if not is_merged:
            continue
        rows = [one.reads for one in group]
        union = [torch.stack(own).sum(dim=0) for own in zip(*rows, strict=True)]
        up += sum(message_bytes(common, own if by_rows else None, beside=2) for own in rows)  # number and reads
        down += clients * message_bytes(common, union if by_rows else None, beside=1)
        sent += [float((table > 0).double().mean()) for own in rows for table in own if by_rows]
        merge(common, group, by_rows)
    models = [common] * clients if is_merged else [one.model for one in group]
    return found | recalled(text, models, owner) | {
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
    """The common model before the first round, and the clients with theirs."""
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
    """own, others, shared."""
    of_fact = owner[text.facts[:, 0]]
    hit_by = {model: ask(model, text, text.facts, "training").exact for model in set(models)}
    hits = [hit_by[model] for model in models]
    own = [share(hit[of_fact == j]) for j, hit in enumerate(hits)]
    others = [share(hit[(of_fact != j) & (of_fact != SHARED)]) for j, hit in enumerate(hits)]
    return {
        "own": mean(own),
        "others": mean(others) if len(models) > 1 else None,
        "shared": mean([share(hit[of_fact == SHARED]) for hit in hits]),
    }


def strangers(text: Text, start: Transformer, group: list[Client], owner: Tensor, whole: bool) -> dict[str, Any]:
    """before, stranger_all, stranger_rows, peer, peer_rows."""
    found: dict[str, list[float]] = {name: [] for name in STRANGERS}
    for j, one in enumerate(group):
        facts, peer = text.facts[owner[text.facts[:, 0]] == j], group[j - 1].model
        models = {"before": one.model, "stranger_all": received(start, one, whole=whole, others=True)}
        if start.tables():
            models["stranger_rows"] = received(start, one, whole=False, others=False)
        if len(group) > 1:
            models["peer"] = peer
            if start.tables():
                models["peer_rows"] = received(peer, one, whole=False, others=False)
        for name, model in models.items():
            found[name].append(share(ask(model, text, facts, "training").exact))
    return {name: mean(shares) for name, shares in found.items()}


def share(hits: Tensor) -> float:
    return float(hits.double().mean())


def mean(shares: list[float]) -> float | None:
    return sum(shares) / len(shares) if shares else None
