"""What every feed-forward is: a map of (batch, sequence, d_model) to itself that says what it reads and costs."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Reads(NamedTuple):
    """Which rows of a pool were added up, and how much of each; r = heads * topk reads a token."""

    slots: Tensor  # (b, s, r) integer rows of the pool
    weights: Tensor  # (b, s, r)


class FFNOutput(NamedTuple):
    hidden: Tensor  # (b, s, d_model)
    reads: Reads | None = None  # of memory layers: for usage and tracing


@dataclass(frozen=True)
class Workload:
    """The shape of a training step, as far as costs depend on it."""

    sequence: float  # input positions a document (mean)
    scored: float  # of them, how many are scored by the head (mean)
    tokens: int = 2048  # input positions a step: backward sorts the reads of a whole step


@dataclass(frozen=True)
class Cost:
    """What one token costs. FLOPs: a multiply-add is two, a comparison one, and element-wise work is left out."""

    forward: float = 0.0  # FLOPs
    backward: float = 0.0  # FLOPs
    bytes_read: float = 0.0  # of parameters, forward
    params: int = 0  # stored; a pool shared by several layers counts once, where it is made

    @property
    def flops(self) -> float:
        """Training FLOPs per token."""
        return self.forward + self.backward

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.forward + other.forward,
            self.backward + other.backward,
            self.bytes_read + other.bytes_read,
            self.params + other.params,
        )


def matrix_cost(*shape: int, bytes_each: int = 4) -> Cost:
    """A matrix of this shape applied once to each token: y = W x, then dL/dx and dL/dW."""
    size = 1
    for length in shape:
        size *= length
    return Cost(forward=2 * size, backward=4 * size, bytes_read=bytes_each * size, params=size)


class FeedForward(Protocol):
    """Position-wise: the output at position t depends on the input at t only."""

    def __call__(self, x: Tensor) -> FFNOutput: ...

    def cost(self, work: Workload) -> Cost: ...
