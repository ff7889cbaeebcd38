"""The interface of every layer: a causal map of (batch, sequence, d_model) to itself, and what it costs."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Reads(NamedTuple):
    """Which rows of a pool were added up, and how much of each; r reads a token."""

    slots: Tensor  # (b, s, r) integer rows of the pool
    weights: Tensor  # (b, s, r)


class FFNOutput(NamedTuple):
    hidden: Tensor  # (b, s, d_model)
    aux_loss: Tensor | None = None  # (), added to the training loss, as an expert router's balance
    reads: Reads | None = None  # of layers with a pool: for usage and tracing


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
    params: int = 0  # stored; pools are counted by the model, once, however many layers read them

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
    """Causal: the output at a position depends on x and on the tokens up to there, and on nothing later.

    What a layer learns from a whole batch, as a load or a variance, it sums over processes (memlayers/processes.py).

    A module declares the roles of its parameters in `param_roles`, {name within the module: role}:
    `output` (writes to the residual stream), `memory_key`, `memory_value`, `filter` (starts at zero). All others are
    `embedding` (of nn.Embedding), `vector` (one axis or none; starts at one), `bias` (named so; starts at zero) or
    `matrix`.
    """

    def __call__(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) and the token ids (b, s) under it."""
        ...

    def cost(self, work: Workload) -> Cost: ...
