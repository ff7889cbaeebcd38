"""Groups and their rates, whose optimizer is whose, and clipping."""

import math

import pytest
import torch
from contract import CASES, D_MODEL, FIRST, HIDDEN, NUM_TOKENS, QUESTIONS, RULES, random_tokens
from stubs import seeded
from torch import Tensor, nn

from memlayers.config import ModelConfig, OptimConfig, RoleConfig, ScheduleConfig
from memlayers.config.optim import ROLES
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.optim import DenseAdamW, LazyAdam, build_optimizers, build_schedules, clip_gradients
from memlayers.optim.groups import peak_rate, rule_of
from memlayers.optim.muon import Muon
from memlayers.optim.rows import RowOptimizer
from memlayers.optim.rules import rule_name
from memlayers.optim.schedule import schedule_factor


def settings(**changes) -> OptimConfig:
    roles = {role: RoleConfig(1 + index / 4, index / 100) for index, role in enumerate(ROLES)}
    return OptimConfig(**{"lr": 0.01, "roles": roles, "values": LazyAdam(lr=0.2)} | changes)


def model_of(case: str = "Memory own", sparse: bool = True, **changes) -> Transformer:
    config = ModelConfig(
        CASES[case], "all", "add", d_model=D_MODEL, hidden=HIDDEN, tied_head=False, before=CASES["ShortConv"], **changes
    )
    return build_model(config, NUM_TOKENS, seeded(), sparse=sparse, questions=QUESTIONS)


def stepped(model: Transformer, optim: OptimConfig) -> dict[str, Tensor]:
    """The parameters before one step."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(random_tokens(4, 5)).logits.square().sum().backward()
    for optimizer in build_optimizers(model, optim):
        optimizer.step()
    return before


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", [*RULES.values(), DenseAdamW(weight_decay=0.3)], ids=[*RULES, "adamw"])
@pytest.mark.parametrize("muon_lr", [None, 0.05])
def test_every_parameter_that_learns_is_in_one_group_with_the_settings_of_its_role(case, rule, muon_lr):
    model, optim = model_of(case, rule.sparse), settings(muon_lr=muon_lr, values=rule)
    optimizers = build_optimizers(model, optim)
    groups = [(optimizer, group) for optimizer in optimizers for group in optimizer.param_groups]
    owned = [id(parameter) for _, group in groups for parameter in group["params"]]
    assert len(owned) == len(set(owned)) and set(owned) == {id(p) for p in model.parameters() if p.requires_grad}
    role_of = {id(parameter): role for _, role, parameter in parameters_with_roles(model)}
    used = {torch.optim.AdamW: "adamw", Muon: "muon", RowOptimizer: rule_name(rule)}
    for optimizer, group in groups:
        role = group["role"]
        assert {role_of[id(parameter)] for parameter in group["params"]} == {role}
        own = optim.roles.get(role)
        of_matrix = muon_lr if muon_lr and role in ("matrix", "output") else 0.01
        assert group["lr"] == peak_rate(role, optim) == (of_matrix * own.lr_mul if own else rule.lr)
        decay = own.weight_decay if own else getattr(rule, "weight_decay", 0.0)
        assert group.get("weight_decay", 0.0) == decay
        assert rule_of(role, optim) == used[type(optimizer)]
    kinds = [type(optimizer) for optimizer in optimizers]
    last = [RowOptimizer if rule.sparse else torch.optim.AdamW] if model.tables() else []
    assert kinds == [torch.optim.AdamW, *([Muon] if muon_lr else []), *last]


def test_muon_turns_matrices_by_steps_of_equal_length_in_all_directions():
    """The gradient with singular values near 1, times the rate, and sqrt(rows / columns) where that is above 1."""
    model, optim = model_of("Memory own gate"), settings(muon_lr=0.05, clip=None)
    optim.roles = {role: RoleConfig() for role in ROLES}
    before = stepped(model, optim)
    for name, role, parameter in parameters_with_roles(model):
        if role in ("matrix", "output"):
            rows, columns = parameter.shape
            moved = (before[name] - parameter.detach()) / 0.05 / max(1.0, rows / columns) ** 0.5
            left, _, right = torch.linalg.svd(parameter.grad, full_matrices=False)
            along = (left.T @ moved @ right.T).diagonal()
            assert along.max() < 1.3 and along[:2].min() > 0.5, name  # Newton and Schulz come near the largest first


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_settings_is_one_line(role):
    roles = {name: one for name, one in settings().roles.items() if name != role}
    model = model_of()
    model.blocks[0].register_parameter("bias", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match=rf"^optim.roles has no '{role}', the role of [a-z_.0-9]+; known: [^\n]*$"):
        build_optimizers(model, settings(roles=roles))


@pytest.mark.parametrize("case", FIRST)
def test_tables_without_a_rule_are_one_line_and_a_model_without_tables_needs_none(case):
    model = model_of(case)
    if not model.tables():
        assert len(build_optimizers(model, settings(values=None))) == 1
        return
    with pytest.raises(
        ValueError, match=r"^optim.values is not set, and the model has value tables; accepted: [^\n]*$"
    ):
        build_optimizers(model, settings(values=None))


@pytest.mark.parametrize("still", [*(role for role in ROLES if role != "bias"), "memory_value"])
@pytest.mark.parametrize("case", FIRST)
def test_a_role_moves_by_its_own_rate_alone(still, case):
    model, optim = model_of(case), settings()
    optim.roles = {role: RoleConfig(0.0 if role == still else 1.0, 0.1) for role in ROLES}
    optim.values.lr = 0.0 if still == "memory_value" else 0.2
    before = stepped(model, optim)
    for name, role, parameter in parameters_with_roles(model):
        assert parameter.equal(before[name]) == (role == still), name


def test_a_dense_table_decays_where_it_was_not_read_and_a_lazy_one_does_not():
    unread = []
    for rule in (LazyAdam(lr=0.2), DenseAdamW(lr=0.2, weight_decay=0.1)):
        model = model_of(sparse=rule.sparse)
        before = model.pools[0].values.detach().clone()
        out = model(torch.tensor([[1]]))
        out.logits.square().sum().backward()
        for optimizer in build_optimizers(model, settings(values=rule)):
            optimizer.step()
        mask = torch.ones(len(before), dtype=torch.bool)
        mask[out.reads["0.ffn"].slots.flatten()] = False
        assert 0 < mask.sum() < len(before)
        unread.append((before[mask], model.pools[0].values.detach()[mask]))
    assert unread[0][0].equal(unread[0][1])
    torch.testing.assert_close(unread[1][1], unread[1][0] * (1 - 0.2 * 0.1))


@pytest.mark.parametrize("rule", [*RULES.values(), DenseAdamW()], ids=[*RULES, "adamw"])
@pytest.mark.parametrize("muon_lr", [None, 0.05])
def test_each_group_keeps_its_ratio_and_values_have_a_schedule_of_their_own(rule, muon_lr):
    optim = settings(schedule=ScheduleConfig(0.25, "linear", 0.1), muon_lr=muon_lr)
    optim.values = type(rule)(lr=0.2, schedule=ScheduleConfig(0.0, "cosine", 0.0))
    for case in ("Memory own", "Dense"):
        optimizers = build_optimizers(model_of(case, rule.sparse), optim)
        schedules = build_schedules(optimizers, optim, 8)
        assert len(schedules) == len(optimizers) == 1 + (muon_lr is not None) + (case != "Dense")
        for step in range(8):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                shape = optim.values.schedule if group["role"] == "memory_value" else optim.schedule
                assert group["lr"] == pytest.approx(peak_rate(group["role"], optim) * schedule_factor(shape, 8)(step))
            for one in (*optimizers, *schedules):
                one.step()


def rows_of(seed: int) -> Tensor:
    """A sparse gradient of a few rows, some listed twice."""
    index, rows = torch.randint(12, (1, 5), generator=seeded(seed)), torch.randn(5, 3, generator=seeded(seed))
    return torch.sparse_coo_tensor(index, rows, (12, 3), check_invariants=True)


def with_gradients() -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with dense gradients, with sparse ones and with none; and the same with the sparse ones made dense."""
    gradients = torch.randn(4, 3), rows_of(1), torch.randn(7), rows_of(2).coalesce()
    mine, theirs = ([nn.Parameter(torch.zeros(gradient.shape)) for gradient in gradients] for _ in range(2))
    for one, other, gradient in zip(mine, theirs, gradients, strict=True):
        one.grad, other.grad = gradient.clone(), gradient.to_dense().clone()
    return [nn.Parameter(torch.ones(2)), *mine], [nn.Parameter(torch.ones(2)), *theirs]


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e3])
def test_clipping_is_torchs_with_sparse_gradients_as_if_dense(max_norm):
    mine, theirs = with_gradients()
    clip_gradients(iter(mine), max_norm)
    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad.to_dense(), other.grad)
    norm = math.sqrt(sum(float(one.grad.to_dense().square().sum()) for one in mine if one.grad is not None))
    assert norm <= max_norm * (1 + 1e-5)


def test_without_a_limit_or_without_gradients_nothing_is_clipped():
    mine, theirs = with_gradients()
    clip_gradients(mine, None)
    for one, other in zip(mine, theirs, strict=True):
        assert one.grad is None or one.grad.to_dense().equal(other.grad)
    clip_gradients([nn.Parameter(torch.ones(3))], 1.0)
    clip_gradients([], 1.0)
