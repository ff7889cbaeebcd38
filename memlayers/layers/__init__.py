"""The layers. Each file holds one: its settings, the module that they build, and the paper's section.

Read in this order: feedforward, dense, product_keys, lookup, pool, memory, gated_memory, site; then what else there is.
"""

from memlayers.layers.dense import Dense
from memlayers.layers.memory import Memory
from memlayers.layers.ngram import NGram
from memlayers.layers.short_conv import ShortConv

FEED_FORWARDS = (Dense, Memory, NGram)  # may stand as model.ffn, or be added where LAYERS may
LAYERS = (*FEED_FORWARDS, ShortConv)


def layer_name(settings: object) -> str:
    """The name of a layer's file: memory for the settings of layers/memory.py, mine for those of a user's mine.py."""
    return type(settings).__module__.rpartition(".")[2]
