"""Norms and softmaxes of short rows in C: see rows.c."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memlayers.kernels.build import library
from memlayers.kernels.checks import MOST_WIDTH, Unsupported, accept
from memlayers.layers import rows

PART = 512  # rows whose share of the gain's gradient is summed one by one: the same on however many threads


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """As memlayers.layers.rows.rms_norm."""
    accept("x", x, torch.float32)
    accept("gain", gain, torch.float32)
    if gain.shape != x.shape[-1:] or len(gain) > MOST_WIDTH:
        shapes = f"x {tuple(x.shape)} and gain {tuple(gain.shape)}"
        raise Unsupported(f"{shapes}; accepted: a gain for each column, up to {MOST_WIDTH}")
    normed: Tensor = _Norm.apply(x, gain)
    return normed


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        normed, inverse = torch.empty_like(x), x.new_empty(x.shape[:-1])
        pointers = x.data_ptr(), gain.data_ptr()
        out = normed.data_ptr(), inverse.data_ptr()
        eps = torch.finfo(x.dtype).eps
        library().norm_forward(*pointers, inverse.numel(), len(gain), eps, *out, torch.get_num_threads())
        ctx.save_for_backward(x, gain, inverse)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gain, inverse = ctx.saved_tensors
        count, c, grad = inverse.numel(), len(gain), grad.contiguous()
        grad_x, grad_gain = torch.empty_like(x), x.new_zeros(-(-count // PART), c)
        pointers = grad.data_ptr(), x.data_ptr(), gain.data_ptr(), inverse.data_ptr()
        out = grad_x.data_ptr(), grad_gain.data_ptr()
        library().norm_backward(*pointers, count, c, PART, *out, torch.get_num_threads())
        return grad_x, grad_gain.sum(dim=0)


def softmax_of_sorted(score: Tensor) -> Tensor:
    """As memlayers.layers.rows.softmax_of_sorted; its backward is one pass."""
    accept("score", score, torch.float32)
    weights: Tensor = _Softmax.apply(score)
    return weights


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Tensor) -> Tensor:
        weights = rows.softmax_of_sorted(score).contiguous()
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        grad, grad_score = grad.contiguous(), torch.empty_like(weights)
        pointers = grad.data_ptr(), weights.data_ptr()
        shape = weights.shape[:-1].numel(), weights.shape[-1]
        library().softmax_backward(*pointers, *shape, grad_score.data_ptr(), torch.get_num_threads())
        return grad_score
