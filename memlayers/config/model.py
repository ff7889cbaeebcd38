"""Settings of the model, and of how a dense arm gets its size."""

from dataclasses import dataclass, field
from typing import Any

from memlayers.config.checks import at_least, one_of, within


@dataclass
class FFNConfig:
    """What the chosen blocks use as feed-forward; name: dense is SwiGLU of width model.hidden, as everywhere else."""

    name: str = "dense"

    def validate(self, d_model: int) -> None:
        one_of("model.ffn.name", self.name, ("dense", "memory", "memory_plus"))


@dataclass
class MemoryConfig(FFNConfig):
    """Product-key memory; a pool for each layer by name: memory, one for all and a gate by name: memory_plus."""

    name: str = "memory"
    num_keys: int = 64  # n keys a half: n * n slots
    heads: int = 4
    topk: int = 8
    d_key: int | None = None  # both halves together; null is d_model / 2, the paper's choice for Memory+
    qk_norm: bool = True  # RMSNorm of queries and keys
    sparse: bool = True  # sparse gradient and lazy optimizer of the values; false: dense ones, over all rows
    value_dtype: str = "float32"

    def key_width(self, d_model: int) -> int:
        return d_model // 2 if self.d_key is None else self.d_key

    def validate(self, d_model: int) -> None:
        super().validate(d_model)
        at_least("model.ffn.num_keys", self.num_keys, 2)
        within("model.ffn.heads", self.heads, 1, 1024)
        within("model.ffn.topk", self.topk, 1, self.num_keys)
        width = self.key_width(d_model)
        if width < 2 or width % 2:
            raise ValueError(f"model.ffn.d_key={width} is not even; accepted: an even number, as a key has two halves")
        one_of("model.ffn.value_dtype", self.value_dtype, ("float32", "bfloat16"))


@dataclass
class ModelConfig:
    """A decoder-only transformer whose feed-forward is chosen block by block."""

    ffn: FFNConfig = field(default_factory=FFNConfig)
    blocks: Any = "middle"  # where ffn stands: [1], [1, 3], all, middle, or a fraction of the depth such as 0.5
    placement: str = "replace"  # of the chosen blocks' dense feed-forward: replace it, or add to it
    d_model: int = 32
    depth: int = 2
    num_heads: int = 2
    hidden: int = 88  # of the dense feed-forwards; arms that are matched have it solved
    tied_head: bool = True
    embedding_std: float = 0.2  # of the first token embeddings

    def chosen_blocks(self) -> list[int]:
        """Indices of the blocks that use ffn; the middle of an even depth is the later of the two."""
        accepted = f"a list of indices such as [{self.depth - 1}], from 0; all, middle, or a fraction from 0 to 1"
        if self.blocks == "all":
            return list(range(self.depth))
        if self.blocks == "middle":
            return [self.depth // 2]
        if isinstance(self.blocks, float) and 0 <= self.blocks <= 1:
            return [min(self.depth - 1, int(self.blocks * self.depth))]
        if not isinstance(self.blocks, list) or not self.blocks or not all(type(b) is int for b in self.blocks):
            raise ValueError(f"model.blocks={self.blocks} is not understood; accepted: {accepted}")
        for block in self.blocks:
            if not 0 <= block < self.depth:
                raise ValueError(f"model.blocks={self.blocks}: block {block} is out of range; accepted: {accepted}")
        return sorted(set(self.blocks))

    def validate(self) -> None:
        for name in ("d_model", "depth", "num_heads", "hidden"):
            at_least(f"model.{name}", getattr(self, name), 1)
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"model.d_model={self.d_model} does not divide into model.num_heads={self.num_heads} heads of even "
                f"width; accepted: a multiple of {2 * self.num_heads}"
            )
        if not self.embedding_std > 0:
            raise ValueError(f"model.embedding_std={self.embedding_std} is not positive; accepted: a number above 0")
        one_of("model.placement", self.placement, ("replace", "add"))
        self.chosen_blocks()
        self.ffn.validate(self.d_model)


@dataclass
class MatchConfig:
    """How a dense arm gets its size: a multiple of the reference arm's training FLOPs, or its stored parameters."""

    reference: FFNConfig | None = None  # whose cost is met; null leaves the model as written
    by: str = "flops"  # flops: training FLOPs per token, over the whole run where spend is longer; params: stored
    times: float = 1.0
    spend: str = "width"  # width: d_model and hidden grow together; hidden; depth; longer: more steps
    multiple_of: int = 1  # the solved hidden is one: products of odd widths are slow, 8 or 16 suit processors better

    def validate(self, d_model: int) -> None:
        one_of("match.by", self.by, ("flops", "params"))
        one_of("match.spend", self.spend, ("width", "hidden", "depth", "longer"))
        within("match.times", self.times, 0.1, 64)
        within("match.multiple_of", self.multiple_of, 1, 1024)
        if self.by == "params" and self.spend == "longer":
            raise ValueError("match.spend=longer adds no parameters; accepted with by=params: width, depth, hidden")
        if self.reference is not None:
            self.reference.validate(d_model)
