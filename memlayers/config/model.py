"""Settings of the model, and of matching its cost."""

from dataclasses import dataclass, field
from typing import Any

from memlayers.checks import at_least, one_of, positive, within
from memlayers.layers import Dense

PLACES = ("residual", "values", "before", "beside")


@dataclass
class ModelConfig:
    """A decoder-only transformer. Its layers are given by their settings, such as layers.Memory."""

    ffn: Any = field(default_factory=Dense)  # the feed-forward of the chosen blocks; all others have a dense one
    blocks: Any = field(default_factory=lambda: [0])  # chosen: [1], [1, 3], all, middle, or a fraction of the depth
    placement: str = "replace"  # replace the dense feed-forward, or add to it
    residual: Any = None  # a layer added to the residual stream before attention, such as a table of n-grams
    values: Any = None  # a layer added to attention's values
    before: Any = None  # a layer between the norm and attention, and between the norm and the feed-forward
    beside: Any = None  # a layer added to the residual stream that reads what the feed-forward reads
    extra_blocks: Any = "all"  # the blocks that have residual, values, before and beside
    d_model: int = 32
    depth: int = 2
    loops: int = 1  # passes over the stack of blocks, with the same weights
    num_heads: int = 2
    hidden: int = 88  # of the dense feed-forwards; solved for in matched arms
    gated: bool = True  # dense feed-forwards: true: SwiGLU; false: two matrices with a GELU between them
    tied_head: bool = True
    embedding_std: float = 0.2  # standard deviation of initial token embeddings
    value_scale: float = 1.0  # of initial values of tables: their standard deviation is this / sqrt(their width)

    @property
    def is_dense(self) -> bool:
        return isinstance(self.ffn, Dense)

    @property
    def has_tables(self) -> bool:
        """Whether any layer reads rows of a pool."""
        return any(hasattr(layer, "pool") for layer in (self.ffn, *(getattr(self, place) for place in PLACES)))

    def chosen_blocks(self) -> list[int]:
        """Indices of the blocks that use ffn; the middle of an even depth is the later of the two."""
        return chosen("model.blocks", self.blocks, self.depth)

    def validate(self) -> None:
        for name in ("d_model", "depth", "num_heads", "hidden"):
            at_least(f"model.{name}", getattr(self, name), 1)
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"model.d_model={self.d_model} does not divide into model.num_heads={self.num_heads} heads of even "
                f"width; accepted: a multiple of {2 * self.num_heads}"
            )
        within("model.loops", self.loops, 1, 64)
        positive("model.embedding_std", self.embedding_std)
        at_least("model.value_scale", self.value_scale, 0)
        layers = {"ffn": self.ffn} | {place: getattr(self, place) for place in PLACES}
        for key, layer in layers.items():
            if self.value_scale == 0 and getattr(layer, "multiplies_values", False):
                why = f"model.{key} multiplies parts of a value, and neither would ever be trained"
                raise ValueError(f"model.value_scale=0: {why}; accepted: above 0")
        one_of("model.placement", self.placement, ("replace", "add"))
        self.chosen_blocks()
        chosen("model.extra_blocks", self.extra_blocks, self.depth)
        validate_layer("model.ffn", self.ffn, self.d_model)
        for place in PLACES:
            if getattr(self, place) is not None:
                validate_layer(f"model.{place}", getattr(self, place), self.d_model)
        for key in ("ffn", *PLACES):
            if self.loops > 1 and getattr(getattr(self, key), "norm", None) == "batch":
                raise ValueError(
                    f"model.loops={self.loops} with model.{key}.norm=batch: running averages would mix the passes; "
                    "accepted: model.loops=1, or norm=rms"
                )


def validate_layer(key: str, layer: Any, d_model: int) -> None:
    """Raises ValueError for a value that is not a layer's settings, and for invalid settings."""
    if not hasattr(layer, "build"):
        choices = {"model.ffn": "arm=memory", "match.reference": "ffn@match.reference=memory"}
        choice = choices.get(key, f"extra@{key}=ngram")
        raise ValueError(f"{key}={layer!r} is no layer; accepted: a choice such as {choice}")
    layer.validate(key, d_model)


def chosen(key: str, blocks: Any, depth: int) -> list[int]:
    """Indices of blocks: [1], [1, 3], all, middle, or a fraction of the depth such as 0.5."""
    accepted = f"a list of indices such as [{depth - 1}], from 0; all, middle, or a fraction from 0 to 1"
    if blocks == "all":
        return list(range(depth))
    if blocks == "middle":
        return [depth // 2]
    if isinstance(blocks, float) and 0 <= blocks <= 1:
        return [min(depth - 1, int(blocks * depth))]
    if not isinstance(blocks, list) or not blocks or not all(type(b) is int for b in blocks):
        raise ValueError(f"{key}={blocks} is not understood; accepted: {accepted}")
    for block in blocks:
        if not 0 <= block < depth:
            raise ValueError(f"{key}={blocks}: block {block} is out of range; accepted: {accepted}")
    return sorted(set(blocks))


@dataclass
class MatchConfig:
    """The cost to which an arm is resized: a multiple of the reference's training FLOPs or parameters."""

    reference: Any = None  # the feed-forward of the reference model; null: no resizing
    by: str = "flops"  # flops: training FLOPs per token, with spend=longer of the whole run; params: stored parameters
    times: float = 1.0
    spend: str | None = None  # width: d_model and hidden together; hidden; depth; both; longer: more steps
    # null: width for a fully dense model, hidden for all others.
    multiple_of: int = 1  # `hidden` is rounded to a multiple: products with odd widths are slow, those of 8 or 16 fast

    def way(self, model: ModelConfig) -> str:
        """The value of `spend`, with its default for this model filled in."""
        return self.spend or ("width" if model.is_dense else "hidden")

    def validate(self, d_model: int) -> None:
        one_of("match.by", self.by, ("flops", "params"))
        if self.spend is not None:
            one_of("match.spend", self.spend, ("width", "hidden", "depth", "both", "longer"))
        within("match.times", self.times, 0.1, 64)
        within("match.multiple_of", self.multiple_of, 1, 1024)
        if self.by == "params" and self.spend == "longer":
            raise ValueError("match.spend=longer adds no parameters; accepted with by=params: width, depth, hidden")
        if self.reference is not None:
            validate_layer("match.reference", self.reference, d_model)
            return
        for name, default in (("by", "flops"), ("times", 1.0), ("spend", None), ("multiple_of", 1)):
            if getattr(self, name) != default:
                raise ValueError(
                    f"match.{name}={getattr(self, name)} has nothing to match; accepted: with a match.reference, "
                    "as ffn@match.reference=memory"
                )
