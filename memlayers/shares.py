"""Memory and traffic of one process of a run whose tables are sharded."""

import dataclasses
import math

import torch
from torch import Tensor

from memlayers.config import ModelConfig
from memlayers.config.optim import Rule
from memlayers.layers.feedforward import Workload
from memlayers.layers.pool import MemoryPool, readers
from memlayers.layers.sharded_pool import check_columns, wire_bytes
from memlayers.model import Transformer, build_model


@dataclasses.dataclass(frozen=True)
class Share:
    """Bytes that one process holds, and that it sends in a step."""

    table_bytes: int
    state_bytes: int  # of the update rule
    other_bytes: int  # all other parameters, their gradients and AdamW's two moments
    sent_bytes: float


def share_of(
    config: ModelConfig, num_tokens: int, work: Workload, rule: Rule, ranks: int, questions: Tensor | None = None
) -> Share:
    """The share of one of `ranks` processes, over which tables are sharded and `work.tokens` tokens of a step are
    split.

    Sent are: the exchange of reads (layers/sharded_pool.py); four bytes for each row that a step may read, if the rule
    keeps one number a row; and the gradients of all other parameters, by ring all-reduce. Left out: statistics that
    layers sum over a batch. Raises ValueError for tables that cannot be cut.
    """
    with torch.device("meta"):
        model = build_model(config, num_tokens, questions=questions).to("meta")
    tables = model.tables()
    for pool in tables:
        check_columns(pool.d_value, ranks)
    others = sum(p.numel() for p in model.parameters()) - sum(pool.values.numel() for pool in tables)
    each, ring = round(work.tokens / ranks), 2 * (ranks - 1) / ranks
    size, state, sent = 0, 0, ring * 4 * others
    for pool in tables:
        width, bytes_each, reads = pool.d_value // ranks, pool.values.element_size(), reads_of(model, pool)
        size += len(pool.values) * width * bytes_each
        state += len(pool.values) * rule.state_bytes(width, bytes_each)
        sent += sum(wire_bytes(each * sums, count, pool.d_value, ranks) for sums, count in reads)
        if 1 in rule.columns(width).values():
            read = work.tokens * sum(sums * count for sums, count in reads)
            sent += ring * 4 * min(len(pool.values), read)
    return Share(size, state, 16 * others, sent)


def reads_of(model: Transformer, pool: MemoryPool) -> list[tuple[int, int]]:
    """For each layer that reads this table, in each pass: how many weighted sums it takes per token, and of how many
    rows each. The model is on the meta device.
    """
    reads: list[tuple[int, int]] = []
    tokens = torch.zeros(1, 4, dtype=torch.long, device="meta")
    x = torch.zeros(1, 4, model.embedding.embedding_dim, device="meta")

    def rows(slots: Tensor) -> Tensor:  # on a sharded table, each row is a sum of its own
        reads.append((slots.numel() // tokens.numel(), 1))
        return MemoryPool.rows(pool, slots)

    def record_sum(_: object, given: tuple[Tensor, ...]) -> None:
        *sums, rows_each = given[0].shape
        reads.append((math.prod(sums) // tokens.numel(), rows_each))

    hook = pool.register_forward_pre_hook(record_sum)
    pool.rows = rows  # type: ignore[method-assign]
    for layer in readers(model):
        if layer.pool is pool:
            layer(x, tokens)
    hook.remove()
    del pool.rows
    return reads * model.loops
