"""The address of a memory: token -> query -> the topk best of n * n slots in each head -> softmax of their scores."""

from collections.abc import Callable
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from memlayers.layers.feedforward import Cost, Reads, Workload, matrix_cost
from memlayers.layers.product_keys import half_scores, look_up, prepared, selection_flops, staircase


class ProductKeyLookup(nn.Module):
    """Which slots a token reads, and with what weights: the half of a memory layer that comes before the values.

    Letters: b batch, s sequence, t = b * s tokens, h heads, two halves of a key, c half-key width, n keys a half.
    With qk_norm, queries and keys are scaled to unit root mean square a half (RMSNorm with learned gains), so that
    scores start at unit variance whatever the residual stream does; without it they grow with the activations.
    Keys come uninitialised: model.init_parameters draws them. Raises ValueError for an odd d_key and for a topk of more
    than num_keys.
    """

    param_roles: ClassVar[dict[str, str]] = {"keys": "memory_key"}

    def __init__(
        self,
        d_model: int,
        *,
        num_keys: int,
        heads: int,
        topk: int,
        d_key: int,
        qk_norm: bool = True,
        look_up: Callable[..., tuple[Tensor, Tensor]] = look_up,  # or a faster one
    ):
        super().__init__()
        if not 1 <= topk <= num_keys:
            raise ValueError(f"topk={topk} is out of range; accepted: 1 to num_keys={num_keys}")
        if d_key < 2 or d_key % 2:
            raise ValueError(f"d_key={d_key} has no two halves; accepted: an even number from 2")
        self.heads, self.topk, self.look_up = heads, topk, look_up
        self.to_query = nn.Linear(d_model, heads * d_key, bias=False)
        self.keys = nn.Parameter(torch.empty(heads, 2, num_keys, d_key // 2))
        gains = torch.ones(d_key // 2), torch.ones(d_key // 2)  # of queries, of keys
        self.gains = nn.ParameterList(gains) if qk_norm else None

    def forward(self, x: Tensor) -> Reads:
        """x (b, s, d_model) -> slots and weights, each (b, s, h * topk); the weights of a head sum to 1."""
        slots, weights = self.look_up(self.queries(x), self.keys, self.gains, self.topk)
        shape = *x.shape[:2], self.heads * self.topk
        return Reads(slots.reshape(shape), weights.reshape(shape))

    def queries(self, x: Tensor) -> Tensor:
        """x (b, s, d_model) -> (t, h, two, c)."""
        query = self.to_query(x).to(self.keys.dtype)  # under autocast, norms are in the dtype of the parameters
        return rearrange(query, "b s (h two c) -> (b s) h two c", h=self.heads, two=2)

    def scores(self, x: Tensor) -> Tensor:
        """x (b, s, d_model) -> half scores (two, h, t, n): the score of slot i * n + j is that of row i and column j,
        and the weights of a head are the softmax over its topk best.
        """
        gains = None if self.gains is None else list(self.gains)
        return half_scores(*prepared(self.queries(x), self.keys, gains))

    def cost(self, work: Workload) -> Cost:
        """Query projection, half scores, and the comparisons of both selections."""
        n = self.keys.shape[-2]
        pairs = len(staircase(self.topk, torch.device("cpu"))[0])
        chosen = self.heads * (2 * selection_flops(n, self.topk) + selection_flops(pairs, self.topk))
        gains = sum(gain.numel() for gain in self.gains or ())
        own = (
            0 if self.keys.requires_grad else 2 * (self.to_query.weight.numel() + self.keys.numel())
        )  # gradients saved
        matrices = matrix_cost(*self.to_query.weight.shape) + matrix_cost(*self.keys.shape)
        return matrices + Cost(chosen, -own, params=gains)
