"""Norm and softmax over short rows: query and key halves, and the scores of a head."""

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMS norm (Zhang and Sennrich 2019): x (..., c) over the root mean square of its last axis, times gain (c,)."""
    return F.rms_norm(x, gain.shape, gain)


def softmax_of_sorted(score: Tensor) -> Tensor:
    """Softmax over the last axis, which is sorted, best first; on rows as short as topk, faster than torch's."""
    power = (score - score[..., :1].detach()).exp()
    return power / power.sum(dim=-1, keepdim=True)


def softmax_with_sink(score: Tensor, sink: Tensor) -> Tensor:
    """Softmax of score (t, h, k) with an extra score `sink` (h,) for each head, whose weight is dropped: (t, h, k)."""
    with_sink = torch.cat([score, sink.to(score.dtype)[:, None].expand(*score.shape[:-1], 1)], dim=-1)
    return with_sink.softmax(dim=-1)[..., :-1]
