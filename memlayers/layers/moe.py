"""A mixture of experts: a router sends each token to the few experts that it scores best (Fedus et al. 2021).

token -> softmax over all experts -> the topk likeliest -> sum over them of  gate * expert(token)

"Switch Transformers" (arXiv 2101.03961, section 2) sends a token to one expert, whose gate is its probability
(equation 2); with several, gates are divided by their sum (GShard, arXiv 2006.16668). No expert has a capacity, so no
token is dropped.

There is no expert choice (Zhou et al. 2022, arXiv 2202.09368), where each expert takes the tokens that it scores best:
whether it takes one would depend on later tokens and on other documents, and the output on what is yet to be predicted.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.checks import at_least, within
from memlayers.layers.dense import Dense
from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload, matrix_cost
from memlayers.layers.product_keys import selection_flops
from memlayers.layers.site import Site
from memlayers.processes import summed


@dataclass
class MoE:
    """Experts are small dense feed-forwards, with a gate where those of the model have one (model.gated)."""

    experts: int = 8
    topk: int = 2
    hidden: int = 44  # of an expert; a token passes topk of them
    shared: int = 0  # more experts, which every token passes (DeepSeekMoE, arXiv 2401.06066, section 3.2)
    balance_loss: float = 0.01  # times a loss that is 1 for an even load (Switch, equation 4)
    balance_step: float = 0.0  # how far the bias of an expert moves a step (arXiv 2408.15664); 0: no biases

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

    Biases choose experts and do not weigh them. In training, each falls by balance_step where more tokens than the mean
    came, and rises where fewer did. There and in the loss the tokens of all processes count, and padding, token 0, not.
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
        made = self.by_expert(flat, chosen)
        hidden = (made * gate.to(made.dtype)[..., None]).sum(dim=1).to(x.dtype).view_as(x)
        if self.shared is not None:
            hidden = hidden + self.shared(x, tokens).hidden
        return FFNOutput(hidden, self.balance(share, chosen, tokens.flatten() != 0))

    def by_expert(self, flat: Tensor, chosen: Tensor) -> Tensor:
        """What each chosen expert (t, k) makes of its token (t, d): (t, k, d)."""
        order = chosen.flatten().sort(stable=True).indices  # so that an expert's tokens are a slice
        load = chosen.flatten().bincount(minlength=len(self.up)).tolist()
        parts, made = flat[order // self.topk].split(load), []
        for rows, up, down in zip(parts, self.up.unbind(), self.down.unbind(), strict=True):
            first = F.linear(rows, up)
            if self.gated:
                gate, value = first.chunk(2, dim=-1)
                made.append(F.linear(F.silu(gate) * value, down))
            else:
                made.append(F.linear(F.gelu(first), down))
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return torch.cat(made)[back].view(*chosen.shape, flat.shape[-1])

    def balance(self, share: Tensor, chosen: Tensor, real: Tensor) -> Tensor | None:
        """Moves the biases. The loss is e * sum over experts of their share of the routes times their mean share."""
        over_all = summed if self.training else lambda own: own  # who only asks may ask alone
        load = over_all(chosen[real].flatten().bincount(minlength=share.shape[-1]).float())
        if self.bias is not None and self.training:
            self.bias -= self.balance_step * (load - load.mean()).sign()
        if not self.balance_loss:
            return None
        mean = over_all((share * real[:, None]).sum(dim=0)) / (load.sum() / self.topk).clamp(min=1)
        return self.balance_loss * len(load) * (load / load.sum().clamp(min=1) * mean).sum()

    def cost(self, work: Workload) -> Cost:
        """The router, the choice, the sort of routes, and of all experts those that a token passes."""
        e, k = len(self.up), self.topk
        chosen = selection_flops(e, k) + k * math.ceil(math.log2(max(2, k * work.tokens)))
        active = matrix_cost(k, *self.up.shape[1:]) + matrix_cost(k, *self.down.shape[1:])
        total = matrix_cost(*self.router.weight.shape) + active + Cost(chosen, params=(e - k) * active.params // k)
        return total if self.shared is None else total + self.shared.cost(work)
