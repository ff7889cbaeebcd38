"""Settings of quantization."""

from dataclasses import dataclass

from memlayers.checks import at_least, one_of

WIDTHS = ("float32", "bfloat16", "int8", "int4", "int2", "ternary")


@dataclass
class QuantizeConfig:
    """Rounding of tables and of weights, and noise on tables: memlayers/quantize.py. float32: no rounding."""

    tables: str = "float32"  # a scale for each row
    weights: str = (
        "float32"  # matrices, keys and embeddings, a scale for each output; vectors and filters are not rounded
    )
    when: str = "after"  # after: once, after training; trained: also in forward and backward of every step
    noise: float = 0.0  # noise added to tables after training, before rounding, in units of their standard deviation

    @property
    def touches_tables(self) -> bool:
        """Whether tables are rounded or get noise."""
        return self.tables != "float32" or self.noise > 0

    @property
    def touches_any(self) -> bool:
        """Whether any parameter is changed."""
        return self.touches_tables or self.weights != "float32"

    def validate(self) -> None:
        one_of("quantize.tables", self.tables, WIDTHS)
        one_of("quantize.weights", self.weights, WIDTHS)
        one_of("quantize.when", self.when, ("after", "trained"))
        at_least("quantize.noise", self.noise, 0)
