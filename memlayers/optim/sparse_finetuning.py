"""Sparse memory finetuning (Lin et al. 2025, arXiv 2510.15103): new facts are learnt in slots that they read and other
text does not; all else is frozen. For any model with layers that read a MemoryPool, ours or a swapped one.

slot    reads by new facts    read in background batches    score
  17            40                    0 of 100                high: its row is trained
   3            90                  100 of 100                   0: frozen

background = Background.of(model, batches)                     once; batches of what is to be kept
rows = choose_rows(count_reads(model, tokens), background, 500)
with only_rows(model, rows):                                   for one step, as in the paper, or for all
    loss.backward()
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from memlayers.layers.feedforward import FFNOutput
from memlayers.layers.pool import MemoryPool, readers

Counts = dict[MemoryPool, Tensor]  # a number for each slot (n,), or rows, of each pool


@torch.no_grad()
def count_reads(model: nn.Module, tokens: Tensor, where: Tensor | None = None) -> Counts:
    """How often each slot is read at the positions of the mask `where` (b, s), or at all of them, by model(tokens).

    A read counts once whatever its weight (section 3.2). Raises ValueError for a model whose layers read no pool.
    """
    counts: Counts = {}
    if not (layers := readers(model)):
        raise ValueError(f"{type(model).__name__} has no layer that reads a pool; accepted: a model with memory layers")

    def add(layer: nn.Module, _: object, out: FFNOutput) -> None:
        assert out.reads is not None
        pool, slots = layer.pool, out.reads.slots.flatten(0, 1)
        assert isinstance(pool, MemoryPool)
        chosen = slots if where is None else slots[where.flatten()]
        read = chosen.flatten().bincount(minlength=len(pool.values))
        counts[pool] = counts[pool] + read if pool in counts else read

    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        for module, training in modes:
            stack.callback(setattr, module, "training", training)
        model.eval()
        for layer in layers:
            stack.callback(layer.register_forward_hook(add).remove)
        model(tokens)
    return counts


@dataclass(frozen=True)
class Background:
    """In how many batches of background text, which is to be kept, each slot is read."""

    batches: int
    containing: Counts

    @classmethod
    def of(cls, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]) -> "Background":
        """Count over batches of (tokens, where), as for count_reads. Raises ValueError for none."""
        containing: Counts = {}
        number = 0
        for tokens, where in batches:
            number += 1
            for pool, count in count_reads(model, tokens, where).items():
                containing[pool] = containing.get(pool, torch.zeros_like(count)) + (count > 0)
        if not number:
            raise ValueError("a background of no batches; accepted: one or more, of text that is to be kept")
        return cls(number, containing)


def tf_idf(count: Tensor, containing: Tensor, batches: int) -> Tensor:
    """The TF-IDF of each slot (n,): its share of all reads * log((batches + 1) / (batches that contain it + 1))."""
    share = count / count.sum().clamp(min=1)
    return share * torch.log((batches + 1) / (containing + 1))


def choose_rows(counts: Counts, background: Background, top: int) -> Counts:
    """The `top` slots of each pool by tf_idf, fewer where fewer are read, and never one that all batches read."""
    rows = {}
    for pool, count in counts.items():
        containing = background.containing.get(pool, torch.zeros_like(count))
        score = tf_idf(count, containing, background.batches)
        best = score.topk(min(top, len(score)))
        rows[pool] = best.indices[best.values > 0]
    return rows


@contextmanager
def only_rows(model: nn.Module, rows: Counts) -> Iterator[list[nn.Parameter]]:
    """Context in which only these rows (t,) of these pools get a gradient; yields the tables. Gradients from before are
    dropped. Afterwards parameters are trainable or frozen as before.

    Use it with SGD, as the paper does, or with the rules of memlayers.optim, which leave rows without a gradient
    unchanged. With dense gradients, Adam's momentum would move other rows too, and weight decay all of them.

    Raises ValueError for a pool whose rows backward updates (MemoryPool.update).
    """
    if any(pool.update is not None for pool in rows):
        raise ValueError("a table is updated in backward, before rows are chosen; accepted: pools without an update")
    with ExitStack() as stack:
        for parameter in model.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer would apply it
        for pool, chosen in rows.items():
            kept = torch.zeros(len(pool.values), dtype=torch.bool, device=pool.values.device)
            kept[chosen] = True
            stack.callback(pool.values.requires_grad_(True).register_hook(partial(masked_gradient, kept)).remove)
        yield [pool.values for pool in rows]


def masked_gradient(kept: Tensor, grad: Tensor) -> Tensor:
    """A table's gradient, sparse or dense (n, d), with rows outside the mask `kept` (n,) left out, or zero."""
    if not grad.is_sparse:
        return grad * kept[:, None]
    index, values = grad._indices(), grad._values()
    inside = kept[index[0]]
    return torch.sparse_coo_tensor(
        index[:, inside], values[inside], grad.shape, is_coalesced=grad.is_coalesced(), check_invariants=False
    )
