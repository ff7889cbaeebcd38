"""Merging the models of clients on the server, and the size of their messages.

average    the mean of all weights, and of averages that layers keep, weighted by documents (FedAvg: McMahan et al.
           2017, arXiv 1602.05629, algorithm 1)
rows       value tables: each row is the mean weighted by how often each client read it; a row that no client read is
           unchanged. All other weights: average, as above.

row    client 0: reads, value    client 1: reads, value    average    rows
 17        30     1.0                 0     0.2              0.6        1.0
  3        30     1.0                10     0.2              0.6        0.8
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from memlayers.model import Transformer
from memlayers.training.federated.clients import Client


def average(parts: Sequence[Tensor], shares: Sequence[int]) -> Tensor:
    """The mean of tensors weighted by `shares`; in float64, so that the mean of equal tensors is exact."""
    total = torch.stack([share * part.double() for share, part in zip(shares, parts, strict=True)]).sum(dim=0)
    return (total / sum(shares)).to(parts[0].dtype)


def by_reads(start: Tensor, tables: Sequence[Tensor], reads: Sequence[Tensor]) -> Tensor:
    """The mean of the clients' tables (n, d), each row weighted by how often each client read it (n,); rows that none
    read are those of `start` (n, d).
    """
    weighted = [count[:, None] * table.double() for count, table in zip(reads, tables, strict=True)]
    count = torch.stack(list(reads)).sum(dim=0)[:, None]
    mean = torch.stack(weighted).sum(dim=0) / count.clamp(min=1)
    return torch.where(count > 0, mean.to(start.dtype), start)


@torch.no_grad()
def merge(common: Transformer, clients: Sequence[Client], by_rows: bool) -> None:
    """Merge the clients' models into `common`, the model at the start of the round, and copy it to all clients."""
    tables = {id(pool.values): place for place, pool in enumerate(common.tables()) if by_rows}
    of_clients = (client.model.parameters() for client in clients)
    for parameter, *theirs in zip(common.parameters(), *of_clients, strict=True):
        if id(parameter) in tables:
            reads = [client.reads[tables[id(parameter)]] for client in clients]
            parameter.copy_(by_reads(parameter, theirs, reads))
        elif parameter.requires_grad:
            parameter.copy_(average(theirs, [client.size for client in clients]))
        for client_parameter in theirs:
            client_parameter.copy_(parameter)
    for buffer, *kept in zip(kept_averages(common), *(kept_averages(client.model) for client in clients), strict=True):
        buffer.copy_(average(kept, [client.size for client in clients]))
        for client_buffer in kept:
            client_buffer.copy_(buffer)


def kept_averages(model: Transformer) -> list[Tensor]:
    """Numbers of a model's state that are no parameters: running statistics of a norm, biases that balance experts."""
    kept = model.state_dict().keys()
    return [buffer for name, buffer in model.named_buffers() if name in kept and buffer.is_floating_point()]


@torch.no_grad()
def received(model: Transformer, sender: Client, *, whole: bool, others: bool) -> Transformer:
    """A copy of `model` with the sender's tables, `whole` or only the rows that it read in its last round, and with its
    other weights if `others`.
    """
    copied = copy.deepcopy(model)
    tables = {id(pool.values): place for place, pool in enumerate(copied.tables())}
    for parameter, sent in zip(copied.parameters(), sender.model.parameters(), strict=True):
        if id(parameter) in tables and not whole:
            rows = sender.reads[tables[id(parameter)]] > 0
            parameter[rows] = sent[rows]
        elif id(parameter) in tables or others:
            parameter.copy_(sent)
    if others:
        for mine, theirs in zip(kept_averages(copied), kept_averages(sender.model), strict=True):
            mine.copy_(theirs)
    return copied


def message_bytes(model: Transformer, rows: Sequence[Tensor] | None, beside: int) -> int:
    """The size of a message with all trained parameters, and averages that layers keep, in float32. If `rows` (n,)
    count the reads of each table, only the rows that were read are sent, each with `beside` integers of 32 bits.
    """
    tables = {id(pool.values) for pool in model.tables() if rows is not None}
    numbers = sum(
        parameter.numel() for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in tables
    )
    numbers += sum(buffer.numel() for buffer in kept_averages(model))
    for pool, read in zip(model.tables(), rows or (), strict=rows is not None):
        numbers += int((read > 0).sum()) * (pool.d_value + beside)
    return 4 * numbers
