"""Settings of how many bits the numbers of a model are stored in."""

from dataclasses import dataclass

from memlayers.checks import at_least, one_of

WIDTHS = ("float32", "bfloat16", "int8", "int4", "int2", "ternary")


@dataclass
class QuantizeConfig:
    """Rounding of value tables and of weights, and noise on tables: memlayers/quantize.py. float32: as they are."""

    tables: str = "float32"  # a scale for each row
    weights: str = "float32"  # matrices, keys and embeddings, a scale for each output; vectors and filters stay
    when: str = "after"  # after: once, when training ends; trained: also in the forward and backward of every step
    noise: float = 0.0  # added to tables when training ends, before rounding: times their standard deviation

    @property
    def touches_tables(self) -> bool:
        return self.tables != "float32" or self.noise > 0

    @property
    def touches_any(self) -> bool:
        return self.touches_tables or self.weights != "float32"

    def validate(self) -> None:
        one_of("quantize.tables", self.tables, WIDTHS)
        one_of("quantize.weights", self.weights, WIDTHS)
        one_of("quantize.when", self.when, ("after", "trained"))
        at_least("quantize.noise", self.noise, 0)
