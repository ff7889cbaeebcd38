"""A small decoder-only transformer whose feed-forwards are chosen block by block."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlayers.config import MemoryConfig, ModelConfig
from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.attention import Attention
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.feedforward import Cost, FeedForward, Reads, Workload, matrix_cost
from memlayers.layers.memory import ProductKeyLookup, ProductKeyMemory
from memlayers.layers.memory_plus import MemoryPlus
from memlayers.layers.pool import MemoryPool


class Output(NamedTuple):
    logits: Tensor  # (m, vocabulary) at the m positions that were asked for, in reading order
    reads: dict[int, Reads]  # of each block with a memory


class Block(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, d_model: int, num_heads: int, ffn: FeedForward):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.attention, self.ffn = Attention(d_model, num_heads), ffn

    def forward(self, x: Tensor) -> tuple[Tensor, Reads | None]:
        x = x + self.attention(self.attention_norm(x))
        out = self.ffn(self.ffn_norm(x))
        return x + out.hidden, out.reads

    def cost(self, work: Workload) -> Cost:
        norms = Cost(params=self.attention_norm.weight.numel() + self.ffn_norm.weight.numel())
        return self.attention.cost(work) + self.ffn.cost(work) + norms


class Transformer(nn.Module):
    """Token embedding, blocks, final norm, head. Pools are registered once, here, however many blocks read them."""

    def __init__(self, num_tokens: int, d_model: int, blocks: list[Block], pools: list[MemoryPool], tied_head: bool):
        super().__init__()
        self.pools = nn.ModuleList(pools)
        self.embedding = nn.Embedding(num_tokens, d_model)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model)
        self.head = None if tied_head else nn.Linear(d_model, num_tokens, bias=False)

    def forward(self, tokens: Tensor, where: Tensor | None = None) -> Output:
        """tokens (b, s) -> logits at the positions of the mask `where` (b, s), or at all of them."""
        x = self.embedding(tokens)
        reads = {}
        for index, block in enumerate(self.blocks):
            x, read = block(x)
            if read is not None:
                reads[index] = read
        x = x.flatten(0, 1) if where is None else x[where]
        weight = self.embedding.weight if self.head is None else self.head.weight
        return Output(nn.functional.linear(self.norm(x), weight), reads)

    def cost(self, work: Workload) -> Cost:
        """Of the whole model. The head is paid for at the scored positions only."""
        share = work.scored / work.sequence
        head = matrix_cost(*self.embedding.weight.shape)
        total = Cost(head.forward * share, head.backward * share, head.bytes_read * share, self.norm.weight.numel())
        total += Cost(params=head.params * (1 if self.head is None else 2))
        for block in self.blocks:
            total += block.cost(work)  # type: ignore[operator]
        for pool in self.pools:
            total += Cost(params=pool.values.numel())  # type: ignore[operator]
        return total


def build_model(
    config: ModelConfig, num_tokens: int, generator: torch.Generator | None = None, kernels: Kernels = REFERENCE
) -> Transformer:
    """The only place where pools are made, and so the only place that decides which layers share one.

    Without a generator the parameters are left uninitialised, as for a model on the meta device whose cost is asked.
    """
    pools: list[MemoryPool] = []
    chosen = config.chosen_blocks()

    def build_ffn(index: int) -> FeedForward:
        if index not in chosen or not isinstance(config.ffn, MemoryConfig):
            return SwiGLU(config.d_model, config.hidden)
        memory = build_memory(config.ffn, config.d_model, pools, kernels)
        return Beside(SwiGLU(config.d_model, config.hidden), memory) if config.placement == "add" else memory

    blocks = [Block(config.d_model, config.num_heads, build_ffn(index)) for index in range(config.depth)]
    model = Transformer(num_tokens, config.d_model, blocks, pools, config.tied_head)
    if generator is not None:
        init_parameters(model, generator, config.embedding_std)
    return model


def build_memory(config: MemoryConfig, d_model: int, pools: list[MemoryPool], kernels: Kernels) -> FeedForward:
    """A memory layer on a new pool, or, of Memory+, on the one that is there."""
    lookup = ProductKeyLookup(
        d_model,
        num_keys=config.num_keys,
        heads=config.heads,
        topk=config.topk,
        d_key=config.key_width(d_model),
        qk_norm=config.qk_norm,
        look_up=kernels.look_up,
    )
    shared = config.name == "memory_plus"
    if not (shared and pools):
        dtype, read = getattr(torch, config.value_dtype), kernels.weighted_read
        pools.append(MemoryPool(config.num_keys**2, d_model, sparse=config.sparse, dtype=dtype, read=read))
        kernels.huge_pages(pools[-1].values)
    return MemoryPlus(d_model, lookup, pools[-1]) if shared else ProductKeyMemory(lookup, pools[-1])


def model_cost(config: ModelConfig, num_tokens: int, work: Workload) -> Cost:
    """Cost of a model that is never allocated."""
    with torch.device("meta"):
        return build_model(config, num_tokens).cost(work)


def parameters_with_roles(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(name, role, parameter) of each parameter, once, however many modules hold it.

    A module declares roles in `param_roles`, by the parameter's name within it; of the rest, embeddings are
    "embedding", vectors "vector" and everything else "matrix".
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        declared: dict[str, str] = getattr(module, "param_roles", {})
        for name, role in declared.items():
            parameter = module.get_parameter(name)
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}.{name}".lstrip("."), role, parameter
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            owner = model.get_submodule(name.rpartition(".")[0])
            is_embedding = isinstance(owner, nn.Embedding)
            role = "embedding" if is_embedding else "vector" if parameter.ndim == 1 else "matrix"
            yield name, role, parameter


@torch.no_grad()
def init_parameters(model: Transformer, generator: torch.Generator, embedding_std: float) -> None:
    """Normal, with a standard deviation for each role; gains of norms start at 1.

    Matrices, keys and values: 1 / sqrt(width of the input or row). Matrices that write to the residual stream are
    divided by sqrt(2 * depth) (GPT-2). Embeddings: embedding_std; facts are learnt earlier with 0.2 than with GPT-2's
    0.02 (LOG.md), perhaps because subjects then differ more than what the young blocks add to them.
    """
    depth = len(model.blocks)
    for _, role, parameter in parameters_with_roles(model):
        if role == "vector":
            parameter.fill_(1.0)
            continue
        std = embedding_std if role == "embedding" else parameter.shape[-1] ** -0.5
        if role == "output":
            std /= (2 * depth) ** 0.5
        if parameter.dtype == torch.float32 and parameter.device == generator.device:
            parameter.normal_(std=std, generator=generator)  # in place: a table may fill half of the memory
        else:
            drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(std=std, generator=generator)
            parameter.copy_(drawn)
