"""A model of somebody else's, with feed-forwards to be replaced."""

import torch
from contract import D_MODEL
from torch import Tensor, nn


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
