"""A table with given addresses, the upper bound: one slot for each fact of the world, so that no two facts interfere.

subject relation | object      the row of the fact is read from the relation on; before it, nothing
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlayers.layers.feedforward import Cost, FFNOutput, Reads, Workload
from memlayers.layers.pool import MemoryPool
from memlayers.layers.site import Site, validate_pool


@dataclass
class Oracle:
    """For terse documents of one fact each, where the tokens before an object identify the fact."""

    value_dtype: str = "float32"
    pool: str = "own"

    def validate(self, key: str, d_model: int) -> None:
        validate_pool(key, self.pool, self.value_dtype)

    def build(self, site: Site) -> "FactTable":
        if site.questions is None:
            raise ValueError(
                "an oracle knows facts by their questions; accepted: world.text=terse, world.document=fact"
            )
        pool = site.pool(len(site.questions) + 1, site.d_model, self.pool, self.value_dtype)
        return FactTable(pool, site.questions)


class FactTable(nn.Module):
    """Row i + 1 of the pool belongs to the fact of questions[i]; row 0 stands for no fact and is read with weight 0."""

    known: Tensor
    slot: Tensor

    def __init__(self, pool: MemoryPool, questions: Tensor):
        """questions (f, q): the tokens before the object of each fact, padded on the right with 0."""
        super().__init__()
        self.pool = pool
        with torch.device(questions.device):  # a model on the meta device has questions too
            last = (questions != 0).sum(dim=1) - 1
            code = prefix_codes(questions)[torch.arange(len(questions)), last]
            known, order = code.sort()
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("slot", order + 1, persistent=False)

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        """x (b, s, d_model) for its shape, tokens (b, s) -> hidden (b, s, d_model) and the reads."""
        code = prefix_codes(tokens)
        place = torch.searchsorted(self.known, code).clamp(max=len(self.known) - 1)
        asked = self.known[place] == code
        position = torch.arange(tokens.shape[1], device=tokens.device).where(asked, -1)
        latest = position.cummax(dim=1).values if position.numel() else position
        slots = self.slot[place].gather(1, latest.clamp(min=0)).where(latest >= 0, 0)[..., None]
        weights = (slots > 0).to(torch.float32)
        return FFNOutput(self.pool(slots, weights).to(x.dtype), reads=Reads(slots, weights))

    def cost(self, work: Workload) -> Cost:
        """The read; finding the address is counted as free."""
        return self.pool.read_cost(1, work, learned=False)


def prefix_codes(tokens: Tensor) -> Tensor:
    """tokens (b, s) -> (b, s): a 64-bit hash of all tokens up to each position; splitmix64 in wrapping int64."""
    state, codes = tokens.new_zeros(len(tokens)), []
    for column in tokens.T:
        state = (state ^ (column + 1)) * -0x40A7B892E31B1A47
        state = (state ^ (state >> 27)) * -0x6B2FB644ECCEEE15
        state = state ^ (state >> 31)
        codes.append(state)
    return torch.stack(codes, dim=1) if codes else tokens.clone()
