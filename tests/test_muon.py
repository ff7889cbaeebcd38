"""Muon of matrices and of stacks of them: slice by slice torch's own, in float32 on a CPU."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import Muon as TorchMuon

from memlayers.optim.muon import Muon, orthogonalized

STEPS = 6


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4), (2, 4, 6), (2, 5, 5), (1, 12, 3), (2, 3, 4, 6)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize(("rounds", "near"), [(False, 1e-3), (True, 0.1)])
def test_each_slice_takes_the_steps_of_torchs_muon(monkeypatch, shape, weight_decay, rounds, near):
    """The same numbers where torch's does not round to bfloat16, and near them where it does."""
    if not rounds:
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    settings = {"lr": 0.1, "weight_decay": weight_decay}
    start = torch.randn(shape)
    stack = nn.Parameter(start.clone())
    slices = [nn.Parameter(one.clone()) for one in start.reshape(-1, *shape[-2:])]
    mine, theirs = Muon([{"params": [stack], **settings}]), TorchMuon([{"params": slices, **settings}])
    for _ in range(STEPS):
        stack.grad = torch.randn(shape)
        for one, grad in zip(slices, stack.grad.reshape(-1, *shape[-2:]), strict=True):
            one.grad = grad.clone()
        before = stack.detach().clone()
        mine.step()
        theirs.step()
        wanted = torch.stack([one.detach() for one in slices]).view(shape)
        length = (wanted - before).norm()
        assert (stack.detach() - wanted).norm() < near * length and length > 0.1
        with torch.no_grad():
            stack.copy_(wanted)  # so that roundings do not add up
    momentum = torch.stack([theirs.state[one]["momentum_buffer"] for one in slices]).view(shape)
    torch.testing.assert_close(mine.state[stack]["momentum_buffer"], momentum)


def test_defaults_are_torchs_but_for_the_decay():
    own, torchs = (kind([nn.Parameter(torch.zeros(2, 2))]).defaults for kind in (Muon, TorchMuon))
    assert own["weight_decay"] == 0.0
    assert {name: torchs[name] for name in own if name != "weight_decay"} == {"lr": 1e-3, "momentum": 0.95}


@pytest.mark.parametrize("shape", [(4, 6, 10), (4, 10, 6), (2, 2, 7, 7)])
def test_directions_come_out_with_singular_values_near_one(shape):
    made = orthogonalized(
        torch.randn(shape) * torch.tensor([1e-3, 1.0, 30.0, 1e3])[: shape[0]].view(-1, *[1] * (len(shape) - 1))
    )
    values = torch.linalg.svdvals(made)
    assert made.shape == shape and made.dtype == torch.float32
    assert values.max() < 1.3 and values[..., : shape[-1] // 2].min() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_rounds_to_bfloat16_on_other_devices_and_never_on_a_cpu(dtype):
    assert orthogonalized(torch.empty(4, 6, dtype=dtype, device="meta")).dtype == torch.bfloat16
    assert orthogonalized(torch.randn(4, 6).to(dtype)).dtype == torch.float32
    weight = nn.Parameter(torch.randn(4, 6).to(dtype))
    before, weight.grad = weight.detach().clone(), torch.randn(4, 6).to(dtype)
    Muon([weight], lr=0.5).step()
    assert weight.dtype == dtype and (weight != before).any(dim=1).all()


def test_a_slice_without_gradient_stays_and_so_does_a_stack_without_any():
    stack, other = nn.Parameter(torch.randn(3, 4, 5)), nn.Parameter(torch.randn(3, 4, 5))
    before = stack.detach().clone(), other.detach().clone()
    optimizer = Muon([stack, other], lr=0.1)
    stack.grad = torch.randn(3, 4, 5)
    stack.grad[1] = 0.0
    optimizer.step()
    assert (stack != before[0]).flatten(1).all(dim=1).tolist() == [True, False, True]
    assert stack[1].equal(before[0][1]) and other.equal(before[1])


def test_it_goes_on_from_its_state():
    gradients, stack = torch.randn(6, 2, 3, 4), nn.Parameter(torch.randn(2, 3, 4))

    def learn(stack: nn.Parameter, optimizer: Muon, first: int, last: int) -> torch.Tensor:
        for step in range(first, last):
            stack.grad = gradients[step].clone()
            optimizer.step()
        return stack.detach().clone()

    optimizer = Muon([stack], lr=0.1)
    learn(stack, optimizer, 0, 3)
    saved, other = copy.deepcopy(optimizer.state_dict()), nn.Parameter(stack.detach().clone())
    resumed = Muon([other], lr=7.0)
    resumed.load_state_dict(saved)
    assert learn(other, resumed, 3, 6).equal(learn(stack, optimizer, 3, 6))
