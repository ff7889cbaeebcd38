"""Batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167) that leaves out padding."""

import torch
from torch import Tensor, nn

from memlayers.processes import all_reduce_sum


class BatchNorm(nn.Module):
    """Normalise each channel to mean 0 and variance 1 over the batch, times a gain, plus a bias.

    Training uses the statistics of the batch, over all processes and without padding (token 0). Evaluation uses their
    running averages, so that no output depends on other tokens. The averages are buffers: they are saved with the
    parameters.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.gain, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """x (b, s, width) -> the same shape; without tokens (b, s), none is padding."""
        mean, variance = self.mean, self.variance
        if self.training:
            wide = x.to(torch.promote_types(x.dtype, torch.float32))  # in bfloat16, 256 + 1 is 256
            real = torch.ones_like(wide[..., :1]) if tokens is None else (tokens != 0).to(wide.dtype)[..., None]
            count = all_reduce_sum(real.sum()).clamp(min=1)
            mean = all_reduce_sum((wide * real).sum(dim=(0, 1))) / count
            variance = all_reduce_sum(((wide - mean).square() * real).sum(dim=(0, 1))) / count
            self.mean.lerp_(mean.detach().to(self.mean.dtype), self.momentum)
            self.variance.lerp_(variance.detach().to(self.variance.dtype), self.momentum)
        return ((x - mean) * (variance + self.eps).rsqrt() * self.gain + self.bias).to(x.dtype)
