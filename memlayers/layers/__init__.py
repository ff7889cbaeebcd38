"""The layers. The file of a layer holds its settings, the module that they build, and the paper's section.

Read in this order; files marked * are parts that layers are built from, and have no settings.

    feedforward    * the interface of all layers: inputs, outputs, costs
    dense          the baseline: SwiGLU or MLP
    site           * what a layer is built from; which layers share a pool
    attention      * causal self-attention
    block          * a transformer block, and where in it layers may stand
    product_keys   * exact top-k over n * n slots
    rows           * softmax of short rows
    batch_norm     * batch normalisation that leaves out padding
    lookup         * which slots a token reads, with what weights
    pool           * the value table and its weighted read
    memory         Memory and Memory+, which gates what is read
    updates        * in-place Adam, Adagrad and SGD of the rows that were read
    beside         * a layer added to the dense feed-forward
    ngram          a table addressed by hashes of the last n tokens
    peer           experts of one neuron each, found by product keys
    ultramem_v2    product keys whose scores are combined by a small matrix
    moe            a mixture of experts
    engram         hashed n-grams of several orders, gated
    stem           a SwiGLU whose up-projection is a row for each token
    ple            per-layer embeddings
    oracle         a table with a slot for each fact, addressed by the question
    short_conv     a short causal convolution
    sharded_pool   * a value table whose columns are spread over processes
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
)  # configuration schemas, contract tests and golden curves are made from it


def layer_name(settings: object) -> str:
    """The name of the file that defines these settings: "memory" for layers/memory.py, "mine" for a user's mine.py."""
    return type(settings).__module__.rpartition(".")[2]
