"""A small decoder-only transformer whose layers are chosen block by block."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlayers.config import ModelConfig
from memlayers.config.model import chosen
from memlayers.kernels import REFERENCE, Kernels
from memlayers.layers.beside import Beside
from memlayers.layers.block import Block
from memlayers.layers.dense import Dense
from memlayers.layers.feedforward import Cost, FeedForward, Reads, Workload, matrix_cost
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import ShardedPool
from memlayers.layers.site import Site


class Output(NamedTuple):
    """What the transformer returns."""

    logits: Tensor  # (m, vocabulary) at the m positions of `where`, row by row
    aux_loss: Tensor | None  # (), the sum over all layers that return one
    reads: dict[str, Reads]  # by place of the layer: "0.ffn", "1.residual"; in the second pass "0.ffn.2"


class Transformer(nn.Module):
    """Token embedding, blocks, final norm, head. Each pool is registered here, however many layers read it.

    The stack of blocks is applied `loops` times, with the same weights (Dehghani et al. 2018, arXiv 1807.03819).
    """

    def __init__(
        self,
        num_tokens: int,
        d_model: int,
        blocks: list[Block],
        pools: list[MemoryPool],
        tied_head: bool,
        loops: int = 1,
    ):
        super().__init__()
        self.loops = loops
        self.pools = nn.ModuleList(pools)
        self.embedding = nn.Embedding(num_tokens, d_model)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model)
        self.head = None if tied_head else nn.Linear(d_model, num_tokens, bias=False)

    def forward(self, tokens: Tensor, where: Tensor | None = None) -> Output:
        """tokens (b, s) -> logits at the positions of the mask `where` (b, s), or at all of them."""
        x = self.embedding(tokens)
        reads: dict[str, Reads] = {}
        aux_loss = None
        for loop, (index, block) in product(range(self.loops), enumerate(self.blocks)):
            x, outputs = block(x, tokens)
            suffix = f".{loop + 1}" if loop else ""
            reads |= {f"{index}.{place}{suffix}": out.reads for place, out in outputs.items() if out.reads is not None}
            for out in outputs.values():
                if out.aux_loss is not None:
                    aux_loss = out.aux_loss if aux_loss is None else aux_loss + out.aux_loss
        x = x.flatten(0, 1) if where is None else x[where]
        weight = self.embedding.weight if self.head is None else self.head.weight
        return Output(nn.functional.linear(self.norm(x), weight), aux_loss, reads)

    def tables(self) -> list[MemoryPool]:
        """The model's pools, each once."""
        return [pool for pool in self.pools if isinstance(pool, MemoryPool)]

    def cost(self, work: Workload) -> Cost:
        """Cost of the whole model per token. The head is applied at the scored positions only."""
        share = work.scored / work.sequence
        head = matrix_cost(*self.embedding.weight.shape)
        total = Cost(head.forward * share, head.backward * share, head.bytes_read * share, self.norm.weight.numel())
        total += Cost(params=head.params * (1 if self.head is None else 2))
        for block in self.blocks:
            once: Cost = block.cost(work)  # type: ignore[operator]
            forward, backward, bytes_read = (
                self.loops * part for part in (once.forward, once.backward, once.bytes_read)
            )
            total += Cost(forward, backward, bytes_read, once.params)
        return total + Cost(params=sum(pool.values.numel() for pool in self.tables()))


def build_model(
    config: ModelConfig,
    num_tokens: int,
    generator: torch.Generator | None = None,
    kernels: Kernels = REFERENCE,
    sparse: bool = True,
    questions: Tensor | None = None,
    sharded: bool = False,
) -> Transformer:
    """Build a model from its settings. `sparse`: gradients of value tables hold only the rows that were read.
    `questions` (f, q): the facts' questions, for layers/oracle.py. `sharded`: tables are cut by columns over the
    processes of a run. Without a generator, parameters are left uninitialised, as for a model on the meta device.
    """
    site = Site(config.d_model, config.hidden, num_tokens, kernels, sparse, config.gated, sharded, questions)
    with_ffn = config.chosen_blocks()
    with_extras = chosen("model.extra_blocks", config.extra_blocks, config.depth)

    def build_ffn(index: int) -> FeedForward:
        if index not in with_ffn:
            return Dense().build(site)
        layer: FeedForward = config.ffn.build(site)
        if config.placement == "replace" or config.is_dense:
            return layer
        return Beside(Dense().build(site), layer)

    def build_block(index: int) -> Block:
        ffn = build_ffn(index)
        if index not in with_extras:
            return Block(config.d_model, config.num_heads, ffn)
        extras = config.residual, config.values, config.beside
        residual, values, beside = (layer and layer.build(site) for layer in extras)
        before = (None, None) if config.before is None else (config.before.build(site), config.before.build(site))
        return Block(config.d_model, config.num_heads, ffn, residual, values, before, beside)

    blocks = [build_block(index) for index in range(config.depth)]
    model = Transformer(num_tokens, config.d_model, blocks, site.pools, config.tied_head, config.loops)
    if generator is not None:
        init_parameters(model, generator, config.embedding_std, config.depth * config.loops, config.value_scale)
    return model


def parameters_with_roles(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Yield (name, role, parameter) of each parameter, once, however many modules hold it.

    A module declares roles in `param_roles`, by the parameter's name within it. All others are "embedding" (of
    nn.Embedding), "bias" (one axis or none, and so named), "vector" (one axis or none), or "matrix".
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
            module_name, _, short_name = name.rpartition(".")
            if isinstance(model.get_submodule(module_name), nn.Embedding):
                yield name, "embedding", parameter
            elif parameter.ndim <= 1:
                yield name, "bias" if short_name.endswith("bias") else "vector", parameter
            else:
                yield name, "matrix", parameter


def trained_roles(config: ModelConfig) -> set[str]:
    """The roles of what is trained in a model of these settings."""
    with torch.device("meta"):
        model = build_model(config, num_tokens=1, questions=torch.zeros(1, 1, dtype=torch.long))
    return {role for _, role, parameter in parameters_with_roles(model) if parameter.requires_grad}


@torch.no_grad()
def init_parameters(
    model: nn.Module, generator: torch.Generator, embedding_std: float, depth: int, value_scale: float = 1.0
) -> None:
    """Draw all parameters: gains of norms are 1, biases and filters 0, all others normal, with a std for each role.

    Matrices, keys and values: 1 / sqrt(last axis), of values times `value_scale`. Matrices that write to the residual
    stream: that divided by sqrt(2 * depth), as in GPT-2. Embeddings: embedding_std; facts are learnt earlier with 0.2
    than with GPT-2's 0.02 (LOG.md), perhaps because embeddings of subjects then differ by more than what untrained
    blocks add to them.
    """
    shards = {id(pool.values): pool for pool in model.modules() if isinstance(pool, ShardedPool)}
    constant = {"vector": 1.0, "bias": 0.0, "filter": 0.0}
    for _, role, parameter in parameters_with_roles(model):
        if role in constant:
            parameter.fill_(constant[role])
            continue
        if shard := shards.get(id(parameter)):
            shard.draw(value_scale * shard.d_value**-0.5, generator)
            continue
        std = embedding_std if role == "embedding" else parameter.shape[-1] ** -0.5
        if role == "memory_value":
            std *= value_scale
        if role == "output":
            std /= (2 * depth) ** 0.5
        if parameter.dtype == torch.float32 and parameter.device == generator.device:
            parameter.normal_(std=std, generator=generator)  # in place, as a table may fill half of the memory
        else:
            drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(std=std, generator=generator)
            parameter.copy_(drawn)
