"""The optimizer of rows as torch and a pool's backward meet it."""

from dataclasses import replace

import pytest
import torch
from contract import RULES
from test_rules import EVERY, ROWS, WIDTH, built
from torch import Tensor, nn

from memlayers.optim.rules import SGD, LazyAdam


@EVERY
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(rule):
    values = nn.Parameter(torch.ones(2, 1))
    optimizer = built(replace(rule, lr=1.0), values)

    def closure() -> float:
        loss = nn.functional.embedding(torch.tensor([1]), values, sparse=True).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0 and values.tolist() == [[1.0], [pytest.approx(0.0, abs=1e-6)]]


@EVERY
def test_gradients_whose_rows_ascend_need_no_second_sort_and_others_do(rule, monkeypatch):
    """Autograd drops the mark of a pool's gradient that its rows stand once and in order."""
    ascending = torch.sparse_coo_tensor([[1, 4, 9]], torch.randn(3, WIDTH), (ROWS, WIDTH), check_invariants=True)
    falling = torch.sparse_coo_tensor([[9, 4, 4]], torch.randn(3, WIDTH), (ROWS, WIDTH), check_invariants=True)
    sorts = []
    coalesce = Tensor.coalesce
    monkeypatch.setattr(Tensor, "coalesce", lambda self: sorts.append(self) or coalesce(self))
    values = nn.Parameter(torch.randn(ROWS, WIDTH))
    optimizer = built(rule, values)
    for gradient, sorted_again in ((ascending, 0), (falling, 1)):
        sorts.clear()
        values.grad = gradient
        optimizer.step()
        assert len(sorts) == sorted_again


def test_what_backward_needs_is_counted_as_a_step_and_only_where_one_pass_is_enough():
    for name, rule in RULES.items():
        values = nn.Parameter(torch.randn(ROWS, WIDTH))
        optimizer = built(rule, values)
        update = optimizer.update_of(values)
        assert (update is None) == (len(rule.columns(WIDTH)) > 1) == isinstance(rule, LazyAdam), name
        if update is None:
            continue
        optimizer.param_groups[0]["lr"] = 0.7
        total, rate, eps = update()
        assert rate == 0.7 and eps == getattr(rule, "eps", 0.0) and optimizer.state[values]["step"] == 1
        assert (total is None) == isinstance(rule, SGD)
        assert total is None or (total.shape == (ROWS, 1) and total is update()[0])
        with pytest.raises(ValueError, match=r"^a table of \(2, 3\) is not among the parameters of this optimizer$"):
            optimizer.update_of(nn.Parameter(torch.zeros(2, 3)))
