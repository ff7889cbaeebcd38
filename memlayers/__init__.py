"""memlayers: product-key memory layers against dense ones, at matched compute, on factual recall."""

__version__ = "0.1.0"
