"""A block of the transformer: attention, a feed-forward, and the places where other layers may be added."""

from torch import Tensor, nn

from memlayers.layers.attention import Attention
from memlayers.layers.feedforward import Cost, FeedForward, FFNOutput, Workload


class Block(nn.Module):
    """x + residual(x), then x + attention(norm(x)), then x + ffn(norm(x)) + beside(norm(x)).

    The two layers of `before` are applied to the normed inputs: of attention, and of `ffn` and `beside`.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        ffn: FeedForward,
        residual: FeedForward | None = None,
        values: FeedForward | None = None,  # added to the values of attention
        before: tuple[FeedForward | None, FeedForward | None] = (None, None),  # before attention, before ffn
        beside: FeedForward | None = None,
    ):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.attention, self.ffn = Attention(d_model, num_heads), ffn
        self.residual, self.values, self.beside = residual, values, beside
        self.before_attention, self.before_ffn = before

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, FFNOutput]]:
        """x (b, s, d_model) and tokens (b, s) -> the new x, and each layer's output by its place."""
        outputs: dict[str, FFNOutput] = {}

        def apply(place: str, x: Tensor) -> Tensor:
            outputs[place] = getattr(self, place)(x, tokens)
            return outputs[place].hidden

        if self.residual is not None:
            x = x + apply("residual", x)
        normed = self.attention_norm(x)
        if self.before_attention is not None:
            normed = apply("before_attention", normed)
        x = x + self.attention(normed, None if self.values is None else apply("values", normed))
        normed = self.ffn_norm(x)
        if self.before_ffn is not None:
            normed = apply("before_ffn", normed)
        x = x + apply("ffn", normed)
        return (x if self.beside is None else x + apply("beside", normed)), outputs

    def cost(self, work: Workload) -> Cost:
        """The costs of attention, of all layers, and of the two norms."""
        total = Cost(params=self.attention_norm.weight.numel() + self.ffn_norm.weight.numel())
        extras = self.residual, self.values, self.before_attention, self.before_ffn, self.beside
        for layer in (self.attention, self.ffn, *extras):
            total += layer.cost(work) if layer is not None else Cost()
        return total
