"""Which slots of a memory a token reads: token -> query -> the topk best of n * n slots per head -> weights."""

from collections.abc import Callable
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from memlayers.layers.batch_norm import BatchNorm
from memlayers.layers.feedforward import Cost, Reads, Workload, matrix_cost
from memlayers.layers.product_keys import (
    best_slots,
    half_scores,
    look_up,
    normed_and_scaled,
    selection_flops,
)
from memlayers.layers.rows import softmax_with_sink

NORMS = ("rms", "batch", "none")
SCORES = ("softmax", "sink", "sigmoid", "relu")


class ProductKeyLookup(nn.Module):
    """Which slots a token reads, and with what weights: all of a memory layer but the values.

    Letters: b batch, s sequence, t = b * s tokens, h heads, two halves of a key, c half-key width, n keys a half.
    norm    rms: each half of queries and keys is RMS-normed, with learned gains, so that scores start at unit variance
            whatever the scale of the residual stream; batch: batch norm of queries (Lample et al. 2019, section 3.1);
            none: scores grow with the activations
    score   softmax: the weights of a head sum to 1; sink: to less than 1, as a learned extra score takes a part, where
            the sink of Memory Layers at Scale (section 5.4) has a value too; sigmoid, relu: the reads of a head do not
            compete (Csordas et al. 2023, arXiv 2310.10837, section 3.2)

    Keys are left uninitialised: model.init_parameters draws them. Raises ValueError for an odd d_key and for topk above
    num_keys.
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
        norm: str = "rms",
        score: str = "softmax",
        look_up: Callable[..., tuple[Tensor, Tensor]] = look_up,  # or a faster one, for softmax
    ):
        super().__init__()
        if not 1 <= topk <= num_keys:
            raise ValueError(f"topk={topk} is out of range; accepted: 1 to num_keys={num_keys}")
        if d_key < 2 or d_key % 2:
            raise ValueError(f"d_key={d_key} has no two halves; accepted: an even number from 2")
        self.heads, self.topk, self.score, self.look_up = heads, topk, score, look_up
        self.to_query = nn.Linear(d_model, heads * d_key, bias=False)
        self.keys = nn.Parameter(torch.empty(heads, 2, num_keys, d_key // 2))
        gains = torch.ones(d_key // 2), torch.ones(d_key // 2)  # of queries, of keys
        self.gains = nn.ParameterList(gains) if norm == "rms" else None
        self.batch_norm = BatchNorm(heads * d_key) if norm == "batch" else None
        self.sink_bias = nn.Parameter(torch.zeros(heads)) if score == "sink" else None

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Reads:
        """x (b, s, d_model) -> slots and weights, each (b, s, h * topk); tokens (b, s) show batch norm the padding."""
        query = self.queries(x, tokens)
        if self.score == "softmax":
            slots, weights = self.look_up(query, self.keys, self.gains, self.topk)
        else:
            slots, score = best_slots(query, self.keys, self.gains, self.topk)
            weights = self.weights(score)
        shape = *x.shape[:2], self.heads * self.topk
        return Reads(slots.reshape(shape), weights.reshape(shape))

    def queries(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """x (b, s, d_model) -> query halves (t, h, two, c)."""
        query = self.to_query(x).to(self.keys.dtype)  # also under autocast, for the norms
        if self.batch_norm is not None:
            query = self.batch_norm(query, tokens)
        return rearrange(query, "b s (h two c) -> (b s) h two c", h=self.heads, two=2)

    def weights(self, score: Tensor) -> Tensor:
        """The weights (t, h, topk) of scores (t, h, topk), for every `score` but softmax."""
        if self.sink_bias is not None:
            return softmax_with_sink(score, self.sink_bias)
        return score.sigmoid() if self.score == "sigmoid" else score.relu()

    def scores(self, x: Tensor) -> Tensor:
        """x (b, s, d_model) -> half scores (two, h, t, n). Slot i * n + j has the score of row i plus that of column j;
        each head reads the topk best slots.
        """
        return half_scores(*normed_and_scaled(self.queries(x), self.keys, self.gains))

    def cost(self, work: Workload) -> Cost:
        """The query projection, the half scores, and the comparisons of both top-k selections.

        Backward of half scores is counted for all keys, as in the reference; kernels touch the chosen ones alone.
        """
        n = self.keys.shape[-2]
        pairs = sum(self.topk // rank for rank in range(1, self.topk + 1))  # of the staircase
        comparisons = self.heads * (2 * selection_flops(n, self.topk) + selection_flops(pairs, self.topk))
        matrices = matrix_cost(*self.to_query.weight.shape) + matrix_cost(*self.keys.shape)
        vectors = sum(parameter.numel() for parameter in self.parameters()) - matrices.params
        no_gradients = 0 if self.keys.requires_grad else 2 * matrices.params  # dL/dW of both matrices
        return matrices + Cost(comparisons, -no_gradients, params=vectors)
