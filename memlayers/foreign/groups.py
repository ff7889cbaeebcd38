"""Groups of parameters by role, for an optimizer of one's own."""

from typing import Any

from torch import nn

from memlayers.checks import one_of
from memlayers.config.optim import ROLES
from memlayers.foreign.swapped import Swapped
from memlayers.layers.pool import MemoryPool
from memlayers.model import parameters_with_roles

UNDECAYED = ("memory_value", "vector", "bias", "filter")


def param_groups(model: nn.Module, tables: str = "sparse", **settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Trainable parameters by role, {"params": [...], "role": "memory_key"}, the tables' group last, empty or not.

    Roles are `memory_value`, of tables, and those of config.optim.ROLES; what a swapped model has of its own is of role
    `rest`. Each parameter is in one group, by identity, however many modules hold it. `settings` of a role stand in
    its group; where they say nothing the optimizer's own hold, but tables, vectors and biases of layers of ours are
    not decayed.

    tables="sparse": a table's gradient is of the rows that were read, and other rows stay as they are. For
    memlayers.optim.RowwiseAdagrad, LazyAdam and SGD, and for torch.optim.SGD; AdamW does not take it.

        *others, values = memlayers.param_groups(model, memory_key={"lr": 1e-3})
        optimizers = AdamW(others, lr=1e-4), RowwiseAdagrad(lr=1.0).build(values["params"], kernels.choose("auto"))

    tables="dense": a gradient is of the whole table, as large as the table. For any optimizer.

        optimizer = AdamW(memlayers.param_groups(model, tables="dense"), lr=1e-4)

    This sets which gradients all tables of the model have. Raises ValueError for a role that is not known.
    """
    one_of("tables", tables, ("sparse", "dense"))
    for role in settings:
        one_of("role", role, ("memory_value", *ROLES, "rest"))
    swapped: list[nn.Module] = [one for one in model.modules() if isinstance(one, Swapped)]
    ours = {id(parameter) for one in (swapped or (model,)) for parameter in one.parameters()}
    groups: dict[str, list[nn.Parameter]] = {}
    for _, role, parameter in parameters_with_roles(model):
        if parameter.requires_grad:
            groups.setdefault(role if id(parameter) in ours else "rest", []).append(parameter)
    values = groups.pop("memory_value", [])
    for pool in model.modules():
        if isinstance(pool, MemoryPool):
            pool.sparse = tables == "sparse"
    by_role = {**{role: groups[role] for role in sorted(groups)}, "memory_value": values}
    still = {role: {"weight_decay": 0.0} if role in UNDECAYED else {} for role in by_role}
    return [{"params": own, "role": role, **still[role], **settings.get(role, {})} for role, own in by_role.items()]
