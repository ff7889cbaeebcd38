"""Groups, rates, schedules and clipping; lazy Adam against torch's own optimizers."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from memlayers.config import MemoryConfig, ModelConfig, OptimConfig, RoleConfig, ScheduleConfig, ValuesConfig
from memlayers.optim.rows import LazyAdam, LazySGD, RowwiseAdagrad
from memlayers.model import build_model, parameters_with_roles
from memlayers.optim.groups import build_optimizers, build_schedules, clip_gradients, schedule_factor

BETAS = (0.9, 0.99)
ROWS, WIDTH = 12, 3
ROLES = ("matrix", "output", "vector", "embedding", "memory_key")


def row_gradients(steps: int, rows: int = ROWS) -> list[Tensor]:
    """One sparse gradient a step, of a few rows, some listed twice."""
    return [
        torch.sparse_coo_tensor(
            torch.randint(rows, (1, 5)), torch.randn(5, WIDTH), (rows, WIDTH), check_invariants=True
        )
        for _ in range(steps)
    ]


def trained(values: nn.Parameter, optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        values.grad = gradient.clone().to(values.dtype)
        optimizer.step()
    return values.detach().clone()


def test_lazy_adam_takes_the_steps_of_sparse_adam():
    """Their epsilons differ in where the bias correction is applied, hence a small one."""
    gradients, start = row_gradients(30), torch.randn(ROWS, WIDTH)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    lazy, sparse = LazyAdam([mine], 0.1, BETAS, 1e-12), torch.optim.SparseAdam([theirs], 0.1, BETAS, 1e-12)
    for gradient in gradients:
        torch.testing.assert_close(trained(mine, lazy, [gradient]), trained(theirs, sparse, [gradient]))
    assert (mine - start).abs().max() > 0.1


def test_lazy_adam_is_adam_where_every_row_is_read():
    dense, start = [torch.randn(ROWS, WIDTH) for _ in range(20)], torch.randn(ROWS, WIDTH)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    lazy, adam = LazyAdam([mine], 0.1, BETAS, 0.3), torch.optim.Adam([theirs], 0.1, BETAS, 0.3)
    for gradient in dense:
        rows = gradient.to_sparse(sparse_dim=1)
        torch.testing.assert_close(trained(mine, lazy, [rows]), trained(theirs, adam, [gradient]))


@given(st.lists(st.sets(st.integers(0, ROWS - 1), max_size=4), min_size=1, max_size=6), st.booleans())
def test_rows_that_were_not_read_do_not_move_by_a_bit(reads, half):
    values = nn.Parameter(torch.randn(ROWS, WIDTH).to(torch.bfloat16 if half else torch.float32))
    optimizer = LazyAdam([values], 0.1, BETAS, 1e-8)
    for rows in reads:
        before, state = values.detach().clone(), copy.deepcopy(optimizer.state[values])
        gradient = torch.randn(len(rows), WIDTH) + 3
        index = torch.tensor(sorted(rows), dtype=torch.long)[None]
        after = trained(
            values, optimizer, [torch.sparse_coo_tensor(index, gradient, values.shape, check_invariants=True)]
        )
        moved = (after != before).any(dim=1)
        assert set(moved.nonzero()[:, 0].tolist()) == rows
        for name in ("mean", "square") if state else ():
            assert optimizer.state[values][name][~moved].equal(state[name][~moved])


def test_values_in_bfloat16_are_the_rounded_steps_of_float32_with_exact_moments():
    gradients = [gradient.coalesce().to(torch.bfloat16).float() for gradient in row_gradients(10)]
    half = nn.Parameter(torch.randn(ROWS, WIDTH).bfloat16())
    full = nn.Parameter(half.detach().float())
    of_half, of_full = (LazyAdam([values], 0.1, BETAS, 1e-8) for values in (half, full))
    for gradient in gradients:
        with torch.no_grad():
            full.copy_(half.float())
        assert trained(half, of_half, [gradient]).equal(trained(full, of_full, [gradient]).bfloat16())
    for name in ("mean", "square"):
        assert of_half.state[half][name].dtype == torch.float32
        assert of_half.state[half][name].equal(of_full.state[full][name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_lazy_adam_goes_on_as_if_nothing_had_happened(dtype):
    gradients, values = row_gradients(20), nn.Parameter(torch.randn(ROWS, WIDTH).to(dtype))
    optimizer = LazyAdam([values], 0.1, BETAS, 1e-8)
    trained(values, optimizer, gradients[:10])
    saved, other = copy.deepcopy(optimizer.state_dict()), nn.Parameter(values.detach().clone())
    straight = trained(values, optimizer, gradients[10:])
    resumed = LazyAdam([other], 0.5, (0.1, 0.2), 1.0)
    resumed.load_state_dict(saved)
    assert trained(other, resumed, gradients[10:]).equal(straight)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.9, 0.999), (0.5, 0.9)])
def test_the_first_update_of_a_row_met_late_is_as_large_as_the_docstring_says(betas):
    values = nn.Parameter(torch.zeros(2, 1))
    optimizer = LazyAdam([values], 1.0, betas, 0.0)
    often, late = (torch.sparse_coo_tensor([[row]], [[2.0]], (2, 1), check_invariants=True) for row in (0, 1))
    trained(values, optimizer, [often])
    assert values[0].item() == pytest.approx(-1.0)  # a full update
    trained(values, optimizer, [often] * round(8 / (1 - betas[1])))
    assert trained(values, optimizer, [late])[1].item() == pytest.approx(
        -(1 - betas[0]) / math.sqrt(1 - betas[1]), rel=1e-3
    )


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    values = nn.Parameter(torch.ones(2, 1))
    optimizer = LazyAdam([values], 1.0, BETAS, 1e-8)

    def closure() -> float:
        loss = nn.functional.embedding(torch.tensor([1]), values, sparse=True).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0 and values.tolist() == [[1.0], [pytest.approx(0.0, abs=1e-6)]]


def settings(**changes) -> OptimConfig:
    roles = {role: RoleConfig(1 + index / 4, index / 100) for index, role in enumerate(ROLES)}
    return OptimConfig(**{"lr": 0.01, "roles": roles, "values": ValuesConfig(lr=0.2)} | changes)


def model_of(name: str, **changes) -> nn.Module:
    ffn = {"ffn": MemoryConfig(name=name, num_keys=4, heads=2, topk=2, d_key=4, **changes)} if name != "dense" else {}
    config = ModelConfig(**ffn, blocks="all", d_model=8, hidden=6, tied_head=False, placement="add")
    return build_model(config, 20, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["dense", "memory", "memory_plus"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("muon_lr", [None, 0.05])
def test_every_parameter_is_in_one_group_with_the_settings_of_its_role(name, sparse, muon_lr):
    model = model_of(name, sparse=sparse) if name != "dense" else model_of(name)
    optimizers = build_optimizers(model, settings(muon_lr=muon_lr))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(owned) == len(set(owned)) and set(owned) == {id(parameter) for parameter in model.parameters()}
    role_of = {id(parameter): role for _, role, parameter in parameters_with_roles(model)}
    for group in groups:
        assert {role_of[id(parameter)] for parameter in group["params"]} == {group["role"]}
        own = settings().roles.get(group["role"])
        of_matrix = muon_lr if muon_lr and group["role"] in ("matrix", "output") else 0.01
        assert group["lr"] == (of_matrix * own.lr_mul if own else 0.2)
        assert group.get("weight_decay", 0.0) == (own.weight_decay if own else 0.0)
    kinds = [type(optimizer) for optimizer in optimizers]
    last = LazyAdam if sparse else torch.optim.AdamW
    muon = [torch.optim.Muon] if muon_lr else []
    assert kinds == [torch.optim.AdamW, *muon] + ([] if name == "dense" else [last])


def test_muon_turns_matrices_by_steps_of_equal_length_in_all_directions():
    """The gradient with singular values near 1, times the rate, and sqrt(rows / columns) where that is above 1."""
    model, optim = model_of("memory"), settings(muon_lr=0.05, clip=None)
    optim.roles = {role: RoleConfig() for role in ROLES}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.arange(20).view(4, 5)).logits.square().sum().backward()
    for optimizer in build_optimizers(model, optim):
        optimizer.step()
    for name, role, parameter in parameters_with_roles(model):
        if role in ("matrix", "output"):
            rows, columns = parameter.shape
            moved = (before[name] - parameter.detach()) / 0.05 / max(1.0, rows / columns) ** 0.5
            left, _, right = torch.linalg.svd(parameter.grad, full_matrices=False)
            along = (left.T @ moved @ right.T).diagonal()
            assert along.max() < 1.3 and along[:2].min() > 0.5, name  # Newton and Schulz come near the largest first


def test_roles_are_what_the_modules_declare():
    model = model_of("memory_plus")
    roles = {name: role for name, role, _ in parameters_with_roles(model)}
    assert set(roles) == {name for name, _ in model.named_parameters()}
    parts = {
        "embedding.weight": "embedding",
        "head.weight": "matrix",
        "norm.weight": "vector",
        "pools.0.values": "memory_value",
        "blocks.1.attention.to_qkv.weight": "matrix",
        "blocks.1.attention.out.weight": "output",
        "blocks.1.attention_norm.weight": "vector",
        "blocks.1.ffn.dense.up.weight": "matrix",
        "blocks.1.ffn.dense.down.weight": "output",
        "blocks.1.ffn.memory.gate.weight": "matrix",
        "blocks.1.ffn.memory.out.weight": "output",
        "blocks.1.ffn.memory.lookup.keys": "memory_key",
        "blocks.1.ffn.memory.lookup.to_query.weight": "matrix",
        "blocks.1.ffn.memory.lookup.gains.1": "vector",
    }
    assert {name: roles[name] for name in parts} == parts


@pytest.mark.parametrize("role", ROLES)
def test_a_role_without_settings_is_one_line(role):
    roles = {name: one for name, one in settings().roles.items() if name != role}
    with pytest.raises(ValueError, match=rf"^optim.roles has no '{role}', the role of [a-z_.0-9]+; known: [^\n]*$"):
        build_optimizers(model_of("memory"), settings(roles=roles))


@pytest.mark.parametrize("still", [*ROLES, "memory_value"])
def test_a_role_moves_by_its_own_rate_alone(still):
    model, optim = model_of("memory"), settings()
    optim.roles = {role: RoleConfig(0.0 if role == still else 1.0, 0.1) for role in ROLES}
    optim.values.lr = 0.0 if still == "memory_value" else 0.2
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.arange(20).view(4, 5)).logits.square().sum().backward()
    for optimizer in build_optimizers(model, optim):
        optimizer.step()
    for name, role, parameter in parameters_with_roles(model):
        assert parameter.equal(before[name]) == (role == still), name


def test_a_dense_table_decays_where_it_was_not_read_and_a_lazy_one_does_not():
    unread = []
    for sparse in (True, False):
        model, optim = model_of("memory", sparse=sparse), settings()
        optim.values.weight_decay = 0.0 if sparse else 0.1
        before = model.pools[0].values.detach().clone()
        out = model(torch.tensor([[1]]))
        out.logits.square().sum().backward()
        for optimizer in build_optimizers(model, optim):
            optimizer.step()
        mask = torch.ones(16, dtype=torch.bool)
        mask[out.reads[0].slots.flatten()] = False
        assert 0 < mask.sum() < 16
        unread.append((before[mask], model.pools[0].values.detach()[mask]))
    assert unread[0][0].equal(unread[0][1])
    torch.testing.assert_close(unread[1][1], unread[1][0] * (1 - 0.2 * 0.1))


def factors(steps: int, **shape) -> list[float]:
    factor = schedule_factor(ScheduleConfig(**shape), steps)
    return [factor(step) for step in range(steps)]


def test_schedules_in_closed_form():
    flat = {"warmup": 0.0, "final": 0.0}
    assert factors(10, shape="linear", **flat) == pytest.approx([1 - step / 10 for step in range(10)])
    assert factors(10, shape="constant", **flat) == [1.0] * 10
    assert factors(8, shape="cosine", **flat) == pytest.approx(
        [math.cos(math.pi * step / 16) ** 2 for step in range(8)]
    )
    assert factors(10, shape="trapezoid", **flat) == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])
    assert factors(10, shape="constant", warmup=0.4, final=0.0) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)
    warm = factors(10, shape="linear", warmup=0.2, final=0.5)
    assert warm == pytest.approx([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5])


@given(
    st.sampled_from(["linear", "cosine", "constant", "trapezoid"]),
    st.floats(0, 1),
    st.floats(0.001, 1),
    st.integers(1, 300),
)
def test_schedules_stay_above_zero_and_up_to_one(shape, warmup, final, steps):
    found = factors(steps, shape=shape, warmup=warmup, final=final)
    assert all(0 < factor <= 1 for factor in found)
    beyond = schedule_factor(ScheduleConfig(warmup, shape, final), steps)(steps)
    assert beyond == pytest.approx(1.0 if shape == "constant" else final)


def test_each_group_keeps_its_ratio_and_values_have_a_schedule_of_their_own():
    model = model_of("memory")
    optim = settings(schedule=ScheduleConfig(0.25, "linear", 0.1))
    optim.values.schedule = ScheduleConfig(0.0, "cosine", 0.0)
    optimizers = build_optimizers(model, optim)
    schedules = build_schedules(optimizers, optim, 8)
    assert len(schedules) == 2
    for step in range(8):
        for group in optimizers[0].param_groups:
            wanted = 0.01 * optim.roles[group["role"]].lr_mul * schedule_factor(optim.schedule, 8)(step)
            assert group["lr"] == pytest.approx(wanted)
        wanted = 0.2 * schedule_factor(optim.values.schedule, 8)(step)
        assert optimizers[1].param_groups[0]["lr"] == pytest.approx(wanted)
        for one in (*optimizers, *schedules):
            one.step()
    for changes, kinds in (({}, 1), ({"muon_lr": 0.05}, 2)):
        own = settings(schedule=optim.schedule, **changes)
        own.values.schedule = ScheduleConfig(0.0, "constant", 0.0)
        built = build_optimizers(model_of("dense"), own)
        build_schedules(built, own, 8)
        assert len(built) == kinds
        for group in (group for optimizer in built for group in optimizer.param_groups):
            assert group["lr"] == pytest.approx(group["initial_lr"] * schedule_factor(optim.schedule, 8)(0))


def with_gradients() -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with dense gradients, with sparse ones and with none; and the same with the sparse ones made dense."""
    gradients = torch.randn(4, WIDTH), row_gradients(1)[0], torch.randn(7), row_gradients(1)[0].coalesce()
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


@pytest.mark.parametrize("rule", [LazyAdam, RowwiseAdagrad, LazySGD])
def test_a_negative_rate_is_refused(rule):
    settings = {LazyAdam: {"betas": (0.9, 0.99), "eps": 1e-8}, RowwiseAdagrad: {"eps": 1e-8}, LazySGD: {}}[rule]
    with pytest.raises(ValueError, match=r"lr=-1.0 is no rate; accepted: 0 or more"):
        rule([nn.Parameter(torch.zeros(2, 2))], lr=-1.0, **settings)
