"""Optimizers of value tables: they step on the rows that have a gradient, and leave all others as they are."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.pool import RowUpdate


class RowOptimizer(Optimizer):
    """Takes sparse gradients apart into rows and their gradients; a subclass says what happens to them.

    State is float32 whatever the values are. Raises ValueError for a negative rate.
    """

    def __init__(self, params: Iterable[nn.Parameter], defaults: dict[str, Any], kernels: Kernels):
        if not defaults["lr"] >= 0:
            raise ValueError(f"lr={defaults['lr']} is no rate; accepted: 0 or more")
        self.kernels = kernels
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "kernels": self.kernels}  # of which torch knows nothing

    def zeros(self, values: Tensor, columns: int) -> Tensor:
        """State of `columns` numbers for a row."""
        empty = torch.empty(len(values), columns, dtype=torch.float32, device=values.device)
        return self.kernels.huge_pages(empty).zero_()

    def new_state(self, values: Tensor) -> dict[str, Tensor]:
        """Of a table (n, d): tensors of n rows."""
        raise NotImplementedError

    def update(self, values: Tensor, state: dict[str, Any], rows: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        """One step of distinct rows (u,) with gradients (u, d), in place."""
        raise NotImplementedError

    def next_state(self, values: Tensor) -> dict[str, Any]:
        """The state of a table, at the count of the step to be taken."""
        state: dict[str, Any] = self.state[values]
        if not state:
            state |= {"step": 0} | self.new_state(values)
        state["step"] += 1
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for values in group["params"]:
                if values.grad is None:
                    continue
                self.update(values, self.next_state(values), *rows_and_gradients(values.grad), group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimizer's, except that torch would round the state to the dtype of the values."""
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        values = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved, values, strict=True):
            for name, content in state_dict["state"].get(index, {}).items():
                if isinstance(content, Tensor):
                    self.state[parameter][name] = self.zeros(parameter, content.shape[1]).copy_(content)


class LazyAdam(RowOptimizer):
    """Adam on the rows that were read; layers/updates.py says what a skipped step means.

    rowwise: one second moment for a row, not for each of its numbers.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        rowwise: bool = False,
        kernels: Kernels = REFERENCE,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "rowwise": rowwise}, kernels)

    def new_state(self, values: Tensor) -> dict[str, Tensor]:
        width = values.shape[1]
        return {
            "mean": self.zeros(values, width),
            "square": self.zeros(values, 1 if self.defaults["rowwise"] else width),
        }

    def update(self, values: Tensor, state: dict[str, Any], rows: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        settings = {"rate": group["lr"], "betas": group["betas"], "eps": group["eps"], "step": state["step"]}
        self.kernels.adam_rows(values, state["mean"], state["square"], rows, grad, **settings)


class FusedRule(RowOptimizer):
    """Rules that keep one number for a row at most: backward can update a row while it visits it."""

    def update_of(self, values: Tensor) -> RowUpdate:
        """For MemoryPool.update: backward then moves the rows of this table, where the kernels can.

        The numbers are those of `step`, digit for digit, which finds nothing left to do. For loops with one step after
        every backward, and pools that one layer reads: with two readers rows would change between them; backward sees
        that and raises RuntimeError, but not where the read is recomputed by checkpointing.

        Raises ValueError for a table that is not among this optimizer's parameters.
        """
        self.group_of(values)
        return partial(self.now, values)

    def group_of(self, values: Tensor) -> dict[str, Any]:
        """Its settings. Not to be kept: schedules change them, and load_state_dict replaces the group."""
        for group in self.param_groups:
            if any(values is own for own in group["params"]):
                return group
        raise ValueError(f"a table of {tuple(values.shape)} is not among the parameters of this {type(self).__name__}")

    def now(self, values: Tensor) -> tuple[Tensor | None, float, float]:
        """What the update to come needs: sums of squares (n, 1) or none, rate, eps. Counts a step."""
        raise NotImplementedError


class RowwiseAdagrad(FusedRule):
    """Adagrad with one sum of squares for a row, as tables of recommenders are trained."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, eps: float, kernels: Kernels = REFERENCE):
        super().__init__(params, {"lr": lr, "eps": eps}, kernels)

    def new_state(self, values: Tensor) -> dict[str, Tensor]:
        return {"total": self.zeros(values, 1)}

    def now(self, values: Tensor) -> tuple[Tensor, float, float]:
        group = self.group_of(values)
        return self.next_state(values)["total"], group["lr"], group["eps"]

    def update(self, values: Tensor, state: dict[str, Any], rows: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        self.kernels.adagrad_rows(values, state["total"], rows, grad, rate=group["lr"], eps=group["eps"])


class LazySGD(FusedRule):
    """Gradient descent, without momentum."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, kernels: Kernels = REFERENCE):
        super().__init__(params, {"lr": lr}, kernels)

    def new_state(self, values: Tensor) -> dict[str, Tensor]:
        return {}

    def now(self, values: Tensor) -> tuple[None, float, float]:
        self.next_state(values)
        return None, self.group_of(values)["lr"], 0.0

    def update(self, values: Tensor, state: dict[str, Any], rows: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        self.kernels.sgd_rows(values, rows, grad, rate=group["lr"])


def rows_and_gradients(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (u,) of a sparse gradient and their gradients (u, d).

    A pool's gradient has each row once and in order, but autograd drops the mark that says so; rows that ascend say
    it as well, and save a second sort.
    """
    rows = grad._indices()[0]
    if not grad.is_coalesced() and not bool((rows[1:] > rows[:-1]).all()):
        grad = grad.coalesce()
    return grad._indices()[0], grad._values()
