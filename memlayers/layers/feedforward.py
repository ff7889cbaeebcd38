"""The interface of every layer: a causal map of (batch, sequence, d_model) to itself, and what it costs."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Reads(NamedTuple):
    """Which rows of a pool each token read, and with what weights; r reads per token."""

    slots: Tensor  # (b, s, r) integer rows of the pool
    weights: Tensor  # (b, s, r)


class FFNOutput(NamedTuple):
    """What a layer returns."""

    hidden: Tensor  # (b, s, d_model)
    aux_loss: Tensor | None = None  # (), added to the training loss, such as the load balance of experts
    reads: Reads | None = None  # of layers with a pool: for usage and tracing


@dataclass(frozen=True)
class Workload:
    """The sizes of a training step that costs depend on."""

    sequence: float  # mean input positions of a document; attention's cost follows from it where lengths are alike
    scored: float  # mean positions of a document that the head scores
    tokens: int = 2048  # input positions of a step, whose reads backward sorts


@dataclass(frozen=True)
class Cost:
    """Cost per token. A multiply-add counts two FLOPs, a comparison one; element-wise work is left out."""

    forward: float = 0.0  # FLOPs
    backward: float = 0.0  # FLOPs
    bytes_read: float = 0.0  # bytes of parameters read in forward
    params: int = 0  # without pools, which the model counts once each, however many layers read them

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


def matrix_cost(*shape: int) -> Cost:
    """The cost of applying a matrix of this shape once to each token: y = W x, then dL/dx and dL/dW."""
    size = 1
    for length in shape:
        size *= length
    return Cost(forward=2 * size, backward=4 * size, bytes_read=4 * size, params=size)


class FeedForward(Protocol):
    """The interface of a layer. It is causal: an output depends on x and tokens up to its position, on nothing later.

    Statistics of a batch, such as loads or variances, are summed over processes (memlayers/processes.py).

    A module declares the roles of its parameters in `param_roles`, {name within the module: role}:
    `output` (writes to the residual stream), `memory_key`, `memory_value`, `filter` (starts at zero). All others are
    `embedding` (of nn.Embedding), `vector` (one axis or none; starts at one), `bias` (by its name; starts at zero) or
    `matrix`.
    """

    def __call__(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) and its token ids (b, s) -> hidden (b, s, d_model) and what comes with it."""
        ...

    def cost(self, work: Workload) -> Cost:
        """Cost per token, without the pool's parameters."""
        ...
