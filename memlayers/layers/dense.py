"""The dense feed-forward: SwiGLU (Shazeer 2020, arXiv 2002.05202), the baseline."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.site import Site


@dataclass
class Dense:
    """No settings of its own: its width is model.hidden, as of every dense feed-forward of the model."""

    def validate(self, key: str, d_model: int) -> None:
        pass

    def build(self, site: Site) -> "SwiGLU":
        return SwiGLU(site.d_model, site.hidden)


class SwiGLU(nn.Module):
    """y = (silu(x G) * x U) D for x (b, s, d_model), with `hidden` columns in G and U."""

    param_roles: ClassVar[dict[str, str]] = {"down.weight": "output"}

    def __init__(self, d_model: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(d_model, 2 * hidden, bias=False)  # gate and up side by side: one matmul
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> FFNOutput:
        gate, up = self.up(x).chunk(2, dim=-1)
        return FFNOutput(self.down(F.silu(gate) * up))

    def cost(self, work: Workload) -> Cost:
        return matrix_cost(*self.up.weight.shape) + matrix_cost(*self.down.weight.shape)
