"""What a lookup does to each of many short rows: half queries and keys, and the scores of a head."""

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """x (..., c) over the root mean square of its last axis, times gain (c,) (Zhang and Sennrich 2019)."""
    return F.rms_norm(x, gain.shape, gain)


def softmax_of_sorted(score: Tensor) -> Tensor:
    """Softmax over the last axis, whose first score is the best: torch's own is slow over rows as short as topk."""
    power = (score - score[..., :1].detach()).exp()
    return power / power.sum(dim=-1, keepdim=True)


def softmax_with_sink(score: Tensor, sink: Tensor) -> Tensor:
    """The same with one more score for each head, `sink` (h,), which takes weight and stands for no row: (t, h, k)."""
    every = torch.cat([score, sink.to(score.dtype)[:, None].expand(*score.shape[:-1], 1)], dim=-1)
    return every.softmax(dim=-1)[..., :-1]
