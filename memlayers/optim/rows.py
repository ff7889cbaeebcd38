"""The optimizer of value tables: it updates the rows that have a gradient, and no others."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.pool import RowUpdate

if TYPE_CHECKING:
    from memlayers.optim.rules import ValueRule


class RowOptimizer(Optimizer):
    """Applies an update rule to the rows of sparse gradients.

    State is float32 whatever the dtype of the values. A row without a gradient keeps its state (layers/updates.py).
    """

    def __init__(self, params: Iterable[nn.Parameter], rule: "ValueRule", kernels: Kernels = REFERENCE):
        self.rule, self.kernels = rule, kernels
        super().__init__(params, {"lr": rule.lr})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule, "kernels": self.kernels}  # torch's own leaves these out

    def zeros(self, values: Tensor, columns: int) -> Tensor:
        """Float32 state of zeros for a table, (n, columns), in huge pages where there are any."""
        empty = torch.empty(len(values), columns, dtype=torch.float32, device=values.device)
        return self.kernels.huge_pages(empty).zero_()

    def next_state(self, values: Tensor) -> dict[str, Any]:
        """The state of a table, made at its first step, with the step count raised by one."""
        state: dict[str, Any] = self.state[values]
        if not state:
            columns = self.rule.columns(values.shape[1])
            state |= {"step": 0} | {name: self.zeros(values, count) for name, count in columns.items()}
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
                if values.grad is not None:
                    rows, grad = rows_and_gradients(values.grad)
                    self.rule.update(self.kernels, values, self.next_state(values), rows, grad, group["lr"])
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in any optimizer, but the state stays float32, where torch would round it to the dtype of the values.

        Raises ValueError for the state of another rule.
        """
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        values = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved, values, strict=False):  # torch refuses another number of tables
            state = state_dict["state"].get(index, {})
            found = {name: tuple(content.shape) for name, content in state.items() if name != "step"}
            columns = self.rule.columns(parameter.shape[1]).items()
            if state and found != (own := {name: (len(parameter), count) for name, count in columns}):
                raise ValueError(f"the state of a table has {found}; accepted: {own}, as this table has by this rule")
        super().load_state_dict(state_dict)
        for index, parameter in zip(saved, values, strict=True):
            for name, content in state_dict["state"].get(index, {}).items():
                if isinstance(content, Tensor):
                    self.state[parameter][name] = self.zeros(parameter, content.shape[1]).copy_(content)

    def update_of(self, values: Tensor) -> RowUpdate | None:
        """The value for MemoryPool.update, with which backward updates the rows of this table; None for rules that need
        a gradient.

        In C and in the reference it gives the same digits as `step`, which then has nothing left to do; Triton sums
        many reads of a row in another order, and does not round to bfloat16 between. Only for one step after every
        backward, and for pools that one layer reads: with two readers, rows would change between them, for which
        backward raises RuntimeError, though not if activation checkpointing recomputes the read.

        Raises ValueError for a table that is not among this optimizer's parameters.
        """
        self.group_of(values)
        return None if self.rule.fused_eps is None else partial(self.next_update, values, self.rule.fused_eps)

    def next_update(self, values: Tensor, eps: float) -> tuple[Tensor | None, float, float]:
        """The sums of squares (n, 1) or None, rate and eps of the next update. Counts a step."""
        return self.next_state(values).get("total"), self.group_of(values)["lr"], eps

    def group_of(self, values: Tensor) -> dict[str, Any]:
        """The parameter group of a table. Do not keep it: schedules change it, and load_state_dict replaces it."""
        for group in self.param_groups:
            if any(values is table for table in group["params"]):
                return group
        raise ValueError(f"a table of {tuple(values.shape)} is not among the parameters of this optimizer")


def rows_and_gradients(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (u,) of a sparse gradient and their gradients (u, d).

    A pool's gradient has each row once and in order, but autograd clears is_coalesced. Rows that ascend need no second
    sort. Raises ValueError for a dense gradient.
    """
    if not grad.is_sparse:
        raise ValueError(
            "a value table has a dense gradient; accepted: sparse ones (MemoryPool.sparse, param_groups with "
            "tables='sparse')"
        )
    rows = grad._indices()[0]
    if not grad.is_coalesced() and not bool((rows[1:] > rows[:-1]).all()):
        grad = grad.coalesce()
    return grad._indices()[0], grad._values()
