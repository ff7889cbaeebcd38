"""What clients send, and what a server makes of it.

average    the mean of all weights, by documents (FedAvg: McMahan et al. 2017, arXiv 1602.05629, algorithm 1)
rows       of value tables the rows that were read: each the mean by how often each client read it; a row that nobody
           read stays. Of all other weights the mean, as above.

row    client 0: reads, value    client 1: reads, value    average    rows
 17        30     1.0                 0     0.2              0.6        1.0
  3        30     1.0                10     0.2              0.6        0.8
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from memlayers.federated.clients import Client
from memlayers.model import Transformer


def average(parts: Sequence[Tensor], shares: Sequence[int]) -> Tensor:
    """The mean of tensors by their shares; in float64, so that the mean of equal ones has their digits."""
    total = torch.stack([share * part.double() for share, part in zip(shares, parts, strict=True)]).sum(dim=0)
    return (total / sum(shares)).to(parts[0].dtype)


def by_reads(start: Tensor, tables: Sequence[Tensor], reads: Sequence[Tensor]) -> Tensor:
    """Each row of the clients' tables (n, d) by how often they read it (n,); of `start` (n, d) where none did."""
    weighted = [count[:, None] * table.double() for count, table in zip(reads, tables, strict=True)]
    count = torch.stack(list(reads)).sum(dim=0)[:, None]
    mean = torch.stack(weighted).sum(dim=0) / count.clamp(min=1)
    return torch.where(count > 0, mean.to(start.dtype), start)


@torch.no_grad()
def merge(common: Transformer, clients: Sequence[Client], by_rows: bool) -> None:
    """The new common model, from the one with which the round began and those of the clients; which all have then."""
    tables = {id(pool.values): place for place, pool in enumerate(common.tables()) if by_rows}
    for parameter, *own in zip(common.parameters(), *(one.model.parameters() for one in clients), strict=True):
        if id(parameter) in tables:
            reads = [one.reads[tables[id(parameter)]] for one in clients]
            parameter.copy_(by_reads(parameter, own, reads))
        elif parameter.requires_grad:
            parameter.copy_(average(own, [one.size for one in clients]))
        for one in own:
            one.copy_(parameter)


@torch.no_grad()
def received(model: Transformer, sender: Client, *, whole: bool, others: bool) -> Transformer:
    """A copy of a model, with what a client sent in the place of its own: whole tables, or the rows that the client
    read in its last round; and its other weights, or not.
    """
    made = copy.deepcopy(model)
    tables = {id(pool.values): place for place, pool in enumerate(made.tables())}
    for parameter, sent in zip(made.parameters(), sender.model.parameters(), strict=True):
        if id(parameter) in tables and not whole:
            rows = sender.reads[tables[id(parameter)]] > 0
            parameter[rows] = sent[rows]
        elif id(parameter) in tables or others:
            parameter.copy_(sent)
    return made


def message_bytes(model: Transformer, rows: Sequence[Tensor] | None, beside: int) -> int:
    """Of a message with all that is trained, in float32. Of tables, where `rows` (n,) mark what was read, those rows
    alone, each with so many integers of 32 bits beside it.
    """
    tables = {id(pool.values) for pool in model.tables() if rows is not None}
    numbers = sum(one.numel() for one in model.parameters() if one.requires_grad and id(one) not in tables)
    for pool, read in zip(model.tables(), rows or (), strict=rows is not None):
        numbers += int((read > 0).sum()) * (pool.d_value + beside)
    return 4 * numbers
