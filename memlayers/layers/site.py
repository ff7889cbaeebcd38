"""What a layer is built from: sizes of its model, and the one place that makes pools and decides who shares them."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from memlayers.checks import one_of
from memlayers.layers.feedforward import FeedForward
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import ShardedPool


@dataclass
class Site:
    """What `build` of a layer's settings gets: the sizes of the model, and the tables made so far."""

    d_model: int
    hidden: int  # width of the model's dense feed-forwards
    num_tokens: int  # of the vocabulary
    kernels: Any  # memlayers.kernels.Kernels
    sparse: bool = True  # whether gradients of tables hold only the rows that were read
    gated: bool = True  # whether the dense feed-forwards have a gate
    sharded: bool = False  # whether tables are cut by columns over the processes of a run
    questions: Tensor | None = None  # (f, q) the tokens before each fact's object; None where they are not unique
    pools: list[MemoryPool] = field(default_factory=list)
    shared: dict[tuple[Any, ...], MemoryPool] = field(default_factory=dict)

    def pool(self, num_slots: int, d_value: int, sharing: str, value_dtype: str = "float32") -> MemoryPool:
        """A new table if sharing is "own"; if "shared", the one of this shape and dtype, made at the first call."""
        key = (num_slots, d_value, value_dtype)
        if sharing == "shared" and key in self.shared:
            return self.shared[key]
        dtype, read = getattr(torch, value_dtype), self.kernels.weighted_read
        kind = ShardedPool if self.sharded else MemoryPool
        pool = kind(num_slots, d_value, sparse=self.sparse, dtype=dtype, read=read)
        self.kernels.huge_pages(pool.values)
        self.pools.append(pool)
        if sharing == "shared":
            self.shared[key] = pool
        return pool


def validate_pool(key: str, pool: str, value_dtype: str = "float32") -> None:
    """Of the settings at `key`: whose table a layer reads, and in which dtype its values are."""
    one_of(f"{key}.pool", pool, ("own", "shared"))
    one_of(f"{key}.value_dtype", value_dtype, ("float32", "bfloat16"))


class Settings(Protocol):
    """The interface of a layer's settings, a dataclass filled from YAML."""

    def validate(self, key: str, d_model: int) -> None:
        """Raises ValueError for invalid values, in one line that begins with `key` (such as model.ffn)."""
        ...

    def build(self, site: Site) -> FeedForward: ...
