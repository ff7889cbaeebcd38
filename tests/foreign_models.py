"""A model of somebody else's, with feed-forwards to be replaced, and a layer of a user's own."""

from dataclasses import dataclass

import torch
from contract import D_MODEL
from torch import Tensor, nn

from memlayers.layers.feedforward import FFNOutput


class Feed(nn.Module):
    """A feed-forward of somebody else's, with dropout."""

    def __init__(self, d_model: int = D_MODEL, hidden: int = 20):
        super().__init__()
        self.up, self.down, self.dropout = nn.Linear(d_model, hidden), nn.Linear(hidden, d_model), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.down(self.up(x).relu()))


class Foreign(nn.Module):
    """Three blocks, a head, and what is no feed-forward."""

    def __init__(self, d_model: int = D_MODEL):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"norm": nn.LayerNorm(d_model), "mlp": Feed(d_model)}) for _ in "abc")
        self.attention = nn.MultiheadAttention(d_model, 1)
        self.head, self.other_mlp = nn.Linear(d_model, 5), Feed(d_model + 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block["mlp"](block["norm"](x))
        return self.head(x)


def foreign(**changes) -> Foreign:
    torch.manual_seed(3)
    return Foreign(**changes)


@dataclass
class Bilinear:
    """A layer of the user's own; `balance` times its output is an auxiliary loss."""

    width: int = 6
    balance: float | None = None

    def validate(self, key: str, d_model: int) -> None: ...

    def build(self, site) -> nn.Module:
        return BilinearLayer(site.d_model, self.width, self.balance)


class BilinearLayer(nn.Module):
    def __init__(self, d_model: int, width: int, balance: float | None):
        super().__init__()
        self.up, self.down = nn.Linear(d_model, 2 * width, bias=False), nn.Linear(width, d_model, bias=False)
        self.balance = balance

    def forward(self, x: Tensor, tokens: Tensor | None) -> FFNOutput:
        left, right = self.up(x).chunk(2, dim=-1)
        hidden = self.down(left * right)
        return FFNOutput(hidden, None if self.balance is None else self.balance * hidden.mean())
