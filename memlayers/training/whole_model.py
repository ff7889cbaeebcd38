"""Writes a model with sharded tables as one ordinary file of safetensors."""

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


def parts_of_file(model: Transformer, metadata: dict[str, str], rows: int = 4096) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the file, part by part, for rank 0 to write. All processes take all parts, as each gathers the
    columns of `rows` rows to rank 0, which never holds a whole table.

    The format (github.com/huggingface/safetensors, "Format") is written here, as safetensors itself needs all tensors
    at once: eight bytes with the length of a header, the header in JSON with this metadata, and the tensors.
    """
    state = model.state_dict()
    tables = {pool.values.data_ptr(): pool for pool in model.tables() if isinstance(pool, ShardedPool)}
    unique = [name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name in state]
    names = sorted(
        unique, key=lambda name: (-state[name].element_size(), name)
    )  # widest first, so that each is aligned
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        tensor = state[name]
        table = tables.get(tensor.data_ptr())
        shape = list(tensor.shape) if table is None else [len(tensor), table.d_value]
        begin, end = end, end + math.prod(shape) * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        if state[name].data_ptr() in tables:
            for part in state[name].split(rows):
                yield gather_at_rank0(part.contiguous().view(torch.uint8)).numpy().data
        else:
            yield state[name].flatten().view(torch.uint8).numpy().data


def gather_at_rank0(local: Tensor) -> Tensor:
    """Columns (n, d / N) of each process -> all columns (n, d) at rank 0; other ranks get their own back."""
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
    dist.gather(local, parts)
    return local if parts is None else torch.cat(parts, dim=1)
