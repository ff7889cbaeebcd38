"""The layers. Each file holds one: its settings, the module that they build, and the paper's section.

Read in this order: feedforward, dense, product_keys, lookup, pool, memory, gated_memory, site; then what else there is.
"""

from memlayers.layers.dense import Dense
from memlayers.layers.engram import Engram
from memlayers.layers.memory import Memory
from memlayers.layers.moe import MoE
from memlayers.layers.ngram import NGram
from memlayers.layers.oracle import Oracle
from memlayers.layers.peer import Peer
from memlayers.layers.ple import PLE
from memlayers.layers.short_conv import ShortConv
from memlayers.layers.stem import Stem
from memlayers.layers.ultramem_v2 import UltraMemV2

__all__ = [
    "LAYERS",
    "PLE",
    "Dense",
    "Engram",
    "Memory",
    "MoE",
    "NGram",
    "Oracle",
    "Peer",
    "ShortConv",
    "Stem",
    "UltraMemV2",
    "layer_name",
]

LAYERS = (
    Dense,
    Memory,
    NGram,
    Peer,
    UltraMemV2,
    MoE,
    Stem,
    Engram,
    PLE,
    Oracle,
    ShortConv,
)  # schemas, contract tests and golden curves follow from it


def layer_name(settings: object) -> str:
    """The name of a layer's file: memory for the settings of layers/memory.py, mine for those of a user's mine.py."""
    return type(settings).__module__.rpartition(".")[2]
