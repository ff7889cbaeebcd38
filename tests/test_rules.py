"""Rules of value tables, row by row: against torch's own optimizers, and against loops."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from contract import RULES
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from memlayers.kernels import REFERENCE
from memlayers.optim import rules
from memlayers.optim.rows import RowOptimizer
from memlayers.optim.rules import LazyAdam, RowwiseAdagrad, ValueRule, rule_name

BETAS = [0.9, 0.99]
ROWS, WIDTH = 12, 3
EVERY = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def row_gradients(steps: int, width: int = WIDTH) -> list[Tensor]:
    """One sparse gradient a step, of a few rows, some listed twice."""
    return [
        torch.sparse_coo_tensor(
            torch.randint(ROWS, (1, 5)), torch.randn(5, width), (ROWS, width), check_invariants=True
        )
        for _ in range(steps)
    ]


def built(rule: ValueRule, values: nn.Parameter) -> RowOptimizer:
    return rule.build([values], REFERENCE)


def trained(values: nn.Parameter, optimizer: torch.optim.Optimizer, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        values.grad = gradient.clone().to(values.dtype)
        optimizer.step()
    return values.detach().clone()


def test_every_rule_is_under_test_and_has_a_name_of_its_own():
    assert {type(rule) for rule in RULES.values()} == {kind for kind in rules.RULES.values() if kind.sparse}
    assert [rule_name(rule) for rule in RULES.values()] == list(RULES)
    assert [rule_name(kind()) for kind in rules.RULES.values()] == list(rules.RULES)


TORCHS = {
    "lazy_adam": lambda values: torch.optim.SparseAdam(values, 0.1, tuple(BETAS), 1e-12),
    "rowwise_adam": lambda values: torch.optim.SparseAdam(values, 0.1, tuple(BETAS), 1e-12),
    "rowwise_adagrad": lambda values: torch.optim.Adagrad(values, 0.1, eps=1e-12),
    "sgd": lambda values: torch.optim.SGD(values, 0.1),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_take_the_steps_of_torchs_optimizers_of_sparse_gradients(name):
    """Of width 1 where a row has one number of state. Epsilons differ in where they are added, hence a small one."""
    width = 1 if name.startswith("rowwise") else WIDTH
    gradients, start = row_gradients(30, width), torch.randn(ROWS, width)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rule = replace(RULES[name], eps=1e-12) if hasattr(RULES[name], "eps") else RULES[name]
    own, torchs = built(rule, mine), TORCHS[name]([theirs])
    for gradient in gradients:
        with torch.sparse.check_sparse_tensor_invariants():  # else Adagrad warns that it does not
            wanted = trained(theirs, torchs, [gradient])
        torch.testing.assert_close(trained(mine, own, [gradient]), wanted)
    assert (mine - start).abs().max() > 0.1


def by_loops(rule: ValueRule, values: Tensor, gradients: list[Tensor]) -> Tensor:
    """One row at a time, with the state of each row in a dictionary."""
    values, state = values.double().clone(), {row: {"mean": 0.0, "square": 0.0} for row in range(len(values))}
    for step, gradient in enumerate(gradients, start=1):
        for row in set(gradient._indices()[0].tolist()):
            grad, own = gradient.to_dense()[row].double(), state[row]
            rowwise = getattr(rule, "rowwise", True)
            squared = (grad**2).sum() / len(grad) if rowwise else grad**2
            if isinstance(rule, LazyAdam):
                own["mean"] = rule.betas[0] * own["mean"] + (1 - rule.betas[0]) * grad
                own["square"] = rule.betas[1] * own["square"] + (1 - rule.betas[1]) * squared
                mean = own["mean"] / (1 - rule.betas[0] ** step)
                square = own["square"] / (1 - rule.betas[1] ** step)
                values[row] -= rule.lr * mean / (square**0.5 + rule.eps)
            elif isinstance(rule, RowwiseAdagrad):
                own["square"] = own["square"] + squared
                values[row] -= rule.lr * grad / (own["square"] ** 0.5 + rule.eps)
            else:
                values[row] -= rule.lr * grad
    return values.float()


@EVERY
@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_rules_are_those_of_loops_over_rows(rule, eps):
    rule = replace(rule, eps=eps) if hasattr(rule, "eps") else rule
    gradients, values = row_gradients(15), nn.Parameter(torch.randn(ROWS, WIDTH))
    wanted = by_loops(rule, values.detach(), gradients)
    torch.testing.assert_close(trained(values, built(rule, values), gradients), wanted, rtol=1e-4, atol=1e-5)


def test_lazy_adam_is_adam_where_every_row_is_read():
    dense, start = [torch.randn(ROWS, WIDTH) for _ in range(20)], torch.randn(ROWS, WIDTH)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    lazy, adam = built(LazyAdam(0.1, betas=BETAS, eps=0.3), mine), torch.optim.Adam([theirs], 0.1, tuple(BETAS), 0.3)
    for gradient in dense:
        rows = gradient.to_sparse(sparse_dim=1)
        torch.testing.assert_close(trained(mine, lazy, [rows]), trained(theirs, adam, [gradient]))


@EVERY
@given(st.lists(st.sets(st.integers(0, ROWS - 1), max_size=4), min_size=1, max_size=6), st.booleans())
def test_rows_that_were_not_read_do_not_move_by_a_bit(rule, reads, half):
    values = nn.Parameter(torch.randn(ROWS, WIDTH).to(torch.bfloat16 if half else torch.float32))
    optimizer = built(rule, values)
    for rows in reads:
        before, state = values.detach().clone(), copy.deepcopy(optimizer.state[values])
        gradient = torch.randn(len(rows), WIDTH) + 3
        index = torch.tensor(sorted(rows), dtype=torch.long)[None]
        after = trained(
            values, optimizer, [torch.sparse_coo_tensor(index, gradient, values.shape, check_invariants=True)]
        )
        moved = (after != before).any(dim=1)
        assert set(moved.nonzero()[:, 0].tolist()) == rows
        for name in rule.columns(WIDTH) if state else ():
            assert optimizer.state[values][name][~moved].equal(state[name][~moved])


@EVERY
def test_values_in_bfloat16_are_the_rounded_steps_of_float32_with_exact_state(rule):
    gradients = [gradient.coalesce().to(torch.bfloat16).float() for gradient in row_gradients(10)]
    half = nn.Parameter(torch.randn(ROWS, WIDTH).bfloat16())
    full = nn.Parameter(half.detach().float())
    of_half, of_full = built(rule, half), built(rule, full)
    for gradient in gradients:
        with torch.no_grad():
            full.copy_(half.float())
        assert trained(half, of_half, [gradient]).equal(trained(full, of_full, [gradient]).bfloat16())
    for name, width in rule.columns(WIDTH).items():
        assert of_half.state[half][name].dtype == torch.float32
        assert of_half.state[half][name].shape == (ROWS, width)
        assert of_half.state[half][name].equal(of_full.state[full][name])


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_rule_goes_on_as_if_nothing_had_happened(rule, dtype):
    gradients, values = row_gradients(20), nn.Parameter(torch.randn(ROWS, WIDTH).to(dtype))
    optimizer = built(rule, values)
    trained(values, optimizer, gradients[:10])
    saved, other = copy.deepcopy(optimizer.state_dict()), nn.Parameter(values.detach().clone())
    straight = trained(values, optimizer, gradients[10:])
    resumed = built(replace(rule, lr=0.5), other)
    resumed.load_state_dict(saved)
    assert trained(other, resumed, gradients[10:]).equal(straight)


@EVERY
@pytest.mark.parametrize("other", RULES.values(), ids=RULES)
def test_the_state_of_another_rule_is_refused_and_changes_nothing(rule, other):
    first, second = (nn.Parameter(torch.randn(ROWS, WIDTH)) for _ in range(2))
    before, optimizer = built(other, first), built(rule, second)
    trained(first, before, row_gradients(2))
    if rule.columns(WIDTH) == other.columns(WIDTH):
        optimizer.load_state_dict(before.state_dict())
        assert optimizer.state[second]["step"] == 2
        return
    with pytest.raises(ValueError, match=r"^the state of a table has \{.*\}; accepted: \{.*\}, as this table has by"):
        optimizer.load_state_dict(before.state_dict())
    assert not optimizer.state and optimizer.param_groups[0]["lr"] == rule.lr


@pytest.mark.parametrize(
    ("betas", "rowwise"), [((0.9, 0.99), False), ((0.9, 0.999), False), ((0.5, 0.9), False), ((0.5, 0.9), True)]
)
def test_the_first_update_of_a_row_met_late_is_as_large_as_the_docstring_says(betas, rowwise):
    values = nn.Parameter(torch.zeros(2, 1))
    optimizer = built(LazyAdam(1.0, betas=list(betas), eps=0.0, rowwise=rowwise), values)
    often, late = (torch.sparse_coo_tensor([[row]], [[2.0]], (2, 1), check_invariants=True) for row in (0, 1))
    trained(values, optimizer, [often])
    assert values[0].item() == pytest.approx(-1.0)  # a full update
    trained(values, optimizer, [often] * round(8 / (1 - betas[1])))
    assert trained(values, optimizer, [late])[1].item() == pytest.approx(
        -(1 - betas[0]) / math.sqrt(1 - betas[1]), rel=1e-3
    )
