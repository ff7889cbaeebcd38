"""Groups of parameters by role, for the user's optimizer."""

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

    Roles are `memory_value` (tables) and those of config.optim.ROLES; the parameters of a swapped model that are not
    ours have role `rest`. Each parameter is in one group, however many modules hold it. `settings` of a role are added
    to its group. By default, tables, vectors, biases and filters of our layers have no weight decay.

    tables="sparse": a table's gradient holds only the rows that were read, and other rows are not updated. For
    memlayers.optim.RowwiseAdagrad, LazyAdam and SGD, and torch.optim.SGD; AdamW does not accept it.

        *others, values = memlayers.param_groups(model, memory_key={"lr": 1e-3})
        optimizers = AdamW(others, lr=1e-4), RowwiseAdagrad(lr=1.0).build(values["params"], kernels.choose("auto"))

    tables="dense": a gradient is as large as its table. For any optimizer.

        optimizer = AdamW(memlayers.param_groups(model, tables="dense"), lr=1e-4)

    The call sets the kind of gradient of all tables of the model. Raises ValueError for an unknown role, and for
    settings of one that no parameter has.
    """
    one_of("tables", tables, ("sparse", "dense"))
    for role, own in settings.items():
        one_of("role", role, ("memory_value", *ROLES, "rest"))
        if not isinstance(own, dict) or "params" in own:
            raise ValueError(f"{role}={own!r} is no settings of a group; accepted: a dict, such as {{'lr': 1e-3}}")
    swapped: list[nn.Module] = [module for module in model.modules() if isinstance(module, Swapped)]
    ours = {id(parameter) for module in (swapped or (model,)) for parameter in module.parameters()}
    groups: dict[str, list[nn.Parameter]] = {}
    for _, role, parameter in parameters_with_roles(model):
        if parameter.requires_grad:
            groups.setdefault(role if id(parameter) in ours else "rest", []).append(parameter)
    values = groups.pop("memory_value", [])
    there = sorted(groups) + (["memory_value"] if values else [])
    if strangers := [role for role in settings if role not in there]:
        raise ValueError(f"{strangers[0]}: no trainable parameter has this role; accepted: {', '.join(there)}")
    for pool in model.modules():
        if isinstance(pool, MemoryPool):
            pool.sparse = tables == "sparse"
    by_role = {**{role: groups[role] for role in sorted(groups)}, "memory_value": values}
    defaults = {role: {"weight_decay": 0.0} if role in UNDECAYED else {} for role in by_role}
    return [
        {"params": params, "role": role, **defaults[role], **settings.get(role, {})} for role, params in by_role.items()
    ]
