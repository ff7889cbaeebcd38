"""A mixture of experts: a router sends each token to the few experts that it scores best (Fedus et al. 2021).

token -> softmax over all experts -> the topk likeliest -> sum over them of  gate * expert(token)

"Switch Transformers" (arXiv 2101.03961, section 2) sends a token to one expert, whose gate is its probability
(equation 2); with several, gates are divided by their sum (GShard, arXiv 2006.16668). No expert has a capacity, so no
token is dropped.

Expert choice (Zhou et al. 2022, arXiv 2202.09368), where each expert picks the tokens that it scores best, is left out
because it is not causal: whether a token is picked depends on later tokens and on other documents.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import at_least, within
from memlayers.layers.dense import Dense, activated
from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload, matrix_cost
from memlayers.layers.product_keys import selection_flops
from memlayers.layers.site import Site
from memlayers.processes import all_reduce_sum


@dataclass
class MoE:
    """Experts are small dense feed-forwards, gated if model.gated is."""

    experts: int = 8
    topk: int = 2
    hidden: int = 44  # width of an expert; each token uses topk of them
    shared: int = 0  # experts that every token uses (DeepSeekMoE, arXiv 2401.06066, section 3.2)
    balance_loss: float = 0.01  # weight of a loss that is 1 for an even load (Switch, equation 4)
    balance_step: float = 0.0  # change of an expert's bias per step (arXiv 2408.15664); 0: no biases

    def validate(self, key: str, d_model: int) -> None:
        within(f"{key}.experts", self.experts, 1, 2**16)
        within(f"{key}.topk", self.topk, 1, self.experts)
        at_least(f"{key}.hidden", self.hidden, 1)
        at_least(f"{key}.shared", self.shared, 0)
        at_least(f"{key}.balance_loss", self.balance_loss, 0)
        at_least(f"{key}.balance_step", self.balance_step, 0)

    def build(self, site: Site) -> "MixtureOfExperts":
        shared = Dense().build(replace(site, hidden=self.shared * self.hidden)) if self.shared else None
        return MixtureOfExperts(self, site.d_model, site.gated, shared)


class MixtureOfExperts(nn.Module):
    """Letters: b batch, s sequence, t = b * s tokens, e experts, k = topk, d d_model, f hidden.

    Biases affect which experts are chosen, not their gates. In each pass of training a bias falls by balance_step if
    its expert had more tokens than the mean, and rises if it had fewer. Biases and loss count the tokens of all
    processes, without padding (token 0).
    """

    param_roles: ClassVar[dict[str, str]] = {"down": "output"}
    bias: Tensor | None

    def __init__(self, settings: MoE, d_model: int, gated: bool, shared: FeedForward | None):
        super().__init__()
        self.topk, self.gated, self.shared = settings.topk, gated, shared
        self.balance_loss, self.balance_step = settings.balance_loss, settings.balance_step
        self.router = nn.Linear(d_model, settings.experts, bias=False)
        self.up = nn.Parameter(torch.empty(settings.experts, (1 + gated) * settings.hidden, d_model))
        self.down = nn.Parameter(torch.empty(settings.experts, d_model, settings.hidden))
        self.register_buffer("bias", torch.zeros(settings.experts) if self.balance_step else None)

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d) -> hidden (b, s, d) and the balance loss, where there is one."""
        flat = x.flatten(0, 1)
        share = self.router(flat).float().softmax(dim=-1)
        chosen = (share if self.bias is None else share.detach() + self.bias).topk(self.topk, dim=-1).indices  # (t, k)
        gate = share.gather(-1, chosen)
        if self.topk > 1:
            gate = gate / gate.sum(dim=-1, keepdim=True)
        outputs = self.by_expert(flat, chosen)
        hidden = (outputs * gate.to(outputs.dtype)[..., None]).sum(dim=1).to(x.dtype).view_as(x)
        if self.shared is not None:
            hidden = hidden + self.shared(x, tokens).hidden
        return FFNOutput(hidden, self.balance(share, chosen, tokens.flatten() != 0))

    def by_expert(self, flat: Tensor, chosen: Tensor) -> Tensor:
        """Tokens (t, d) and their chosen experts (t, k) -> the outputs of these experts (t, k, d)."""
        order = chosen.flatten().sort(stable=True).indices  # makes the tokens of an expert contiguous
        load = chosen.flatten().bincount(minlength=len(self.up)).tolist()
        parts = zip(flat[order // self.topk].split(load), self.up.unbind(), self.down.unbind(), strict=True)
        outputs = [F.linear(activated(F.linear(rows, up), self.gated), down) for rows, up, down in parts]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return torch.cat(outputs)[back].view(*chosen.shape, flat.shape[-1])

    def balance(self, share: Tensor, chosen: Tensor, real: Tensor) -> Tensor | None:
        """Update the biases; return balance_loss * e * sum over experts of (share of routes * mean probability)."""
        reduce = all_reduce_sum if self.training else lambda local: local  # one process may evaluate alone
        load = reduce(chosen[real].flatten().bincount(minlength=share.shape[-1]).float())
        if self.bias is not None and self.training:
            self.bias -= self.balance_step * (load - load.mean()).sign()
        if not self.balance_loss:
            return None
        mean = reduce((share * real[:, None]).sum(dim=0)) / (load.sum() / self.topk).clamp(min=1)
        return self.balance_loss * len(load) * (load / load.sum().clamp(min=1) * mean).sum()

    def cost(self, work: Workload) -> Cost:
        """The router, its top-k, the sort of tokens by expert, and the experts that a token uses."""
        e, k = len(self.up), self.topk
        comparisons = selection_flops(e, k) + k * math.ceil(math.log2(max(2, k * work.tokens)))
        active = matrix_cost(k, *self.up.shape[1:]) + matrix_cost(k, *self.down.shape[1:])
        total = matrix_cost(*self.router.weight.shape) + active + Cost(comparisons, params=(e - k) * active.params // k)
        return total if self.shared is None else total + self.shared.cost(work)
