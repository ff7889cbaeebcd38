"""What a layer is built from: the model around it, and the one place that makes pools and decides who shares them."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from memlayers.layers.feedforward import FeedForward
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import ShardedPool


class Implementation(Protocol):
    """Functions that a kernel may replace; memlayers.kernels.Kernels is one."""

    @property
    def look_up(self) -> Any: ...

    @property
    def weighted_read(self) -> Any: ...

    @property
    def huge_pages(self) -> Any: ...


@dataclass
class Site:
    """Where a layer is built: the sizes of its model, and the tables made so far."""

    d_model: int
    hidden: int  # width of the model's dense feed-forwards
    num_tokens: int  # of the vocabulary
    kernels: Implementation
    sparse: bool = True  # gradients of tables: of the rows that were read, or of all
    gated: bool = True  # whether the dense feed-forwards are
    sharded: bool = False  # tables, by their columns over the processes of a run
    questions: Tensor | None = None  # (f, q) what stands before the object of each fact, where that is one text
    pools: list[MemoryPool] = field(default_factory=list)
    shared: dict[tuple[Any, ...], MemoryPool] = field(default_factory=dict)

    def pool(self, num_slots: int, d_value: int, sharing: str, value_dtype: str = "float32") -> MemoryPool:
        """A new table for sharing="own"; for "shared" the model's one of this shape, made by whoever asks first."""
        key = (num_slots, d_value, value_dtype)
        if sharing == "shared" and key in self.shared:
            return self.shared[key]
        dtype, read = getattr(torch, value_dtype), self.kernels.weighted_read
        kind = ShardedPool if self.sharded else MemoryPool
        made = kind(num_slots, d_value, sparse=self.sparse, dtype=dtype, read=read)
        self.kernels.huge_pages(made.values)
        self.pools.append(made)
        if sharing == "shared":
            self.shared[key] = made
        return made


class Settings(Protocol):
    """The dataclass beside a layer; its values come from YAML."""

    def validate(self, key: str, d_model: int) -> None:
        """Raises ValueError, in one line that begins with `key` (as model.ffn), for values that cannot be."""
        ...

    def build(self, site: Site) -> FeedForward: ...
