"""A model whose tables are sharded as one file of safetensors, which one process reads as any other's."""

import json
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from memlayers.layers.sharded_pool import ShardedPool
from memlayers.model import Transformer

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64", torch.bool: "BOOL"}


def parts_of_file(model: Transformer, said: dict[str, str], rows: int = 4096) -> Iterator[bytes | memoryview]:
    """What the first process writes, part by part, with the metadata `said`. All processes run through all parts, as
    each gives its columns; the first one has `rows` whole rows at a time, never a whole table.

    The format (github.com/huggingface/safetensors, "Format") is written here, as safetensors itself wants all tensors
    at once: eight bytes with the length of a header, the header in JSON, and the tensors.
    """
    state = model.state_dict()
    tables = {pool.values.data_ptr(): pool for pool in model.tables() if isinstance(pool, ShardedPool)}
    once = [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name in state]
    names = sorted(once, key=lambda name: (-state[name].element_size(), name))  # so that each begins at its alignment
    header: dict[str, Any] = {"__metadata__": said}
    end = 0
    for name in names:
        one = state[name]
        table = tables.get(one.data_ptr())
        shape = list(one.shape) if table is None else [len(one), table.d_value]
        begin, end = end, end + math.prod(shape) * one.element_size()
        header[name] = {"dtype": DTYPES[one.dtype], "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        if state[name].data_ptr() in tables:
            for part in state[name].split(rows):
                yield at_first(part.contiguous().view(torch.uint8)).numpy().data
        else:
            yield state[name].flatten().view(torch.uint8).numpy().data


def at_first(own: Tensor) -> Tensor:
    """Columns (n, d / N) of each process -> (n, d) at the first one, and what they gave at all others."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(own, parts)
    return own if parts is None else torch.cat(parts, dim=1)
