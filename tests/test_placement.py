"""What stands in which block of a transformer, as its settings say."""

from dataclasses import replace

import torch
from contract import D_MODEL, NUM_TOKENS, SMALL, build

from memlayers.layers import Dense, NGram, ShortConv
from memlayers.layers.beside import Beside
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.memory import GatedMemory, ProductKeyMemory
from memlayers.layers.ngram import NGramTable
from memlayers.layers.short_conv import ShortConvolution


def test_blocks_and_placement_decide_what_stands_where():
    gated = replace(SMALL, gate=True)

    def kinds(ffn, **changes) -> list[type]:
        return [type(block.ffn) for block in build(ffn, depth=4, **changes).blocks]

    plain, read = DenseFeedForward, ProductKeyMemory
    assert kinds(Dense()) == kinds(Dense(), gated=False) == kinds(Dense(), placement="add") == [plain] * 4
    assert [build(Dense(), gated=gate, depth=1).blocks[0].ffn.gated for gate in (True, False)] == [True, False]
    assert kinds(SMALL, blocks=[1], gated=False) == [plain, read, plain, plain]
    assert kinds(SMALL, blocks="middle") == [plain, plain, read, plain]
    assert kinds(gated, blocks=[0, 3]) == [GatedMemory, plain, plain, GatedMemory]
    assert kinds(SMALL, blocks=0.25, placement="add") == [plain, Beside, plain, plain]


def test_extra_blocks_decide_where_the_other_layers_stand():
    extras = {"residual": NGram(), "values": NGram(), "before": ShortConv(), "beside": NGram()}
    blocks = build(depth=4, extra_blocks=[1, 3], **extras).blocks
    for index, block in enumerate(blocks):
        names = ("residual", "values", "beside", "before_attention", "before_ffn")
        kinds = [type(getattr(block, name)) for name in names]
        assert kinds == ([NGramTable] * 3 + [ShortConvolution] * 2 if index in (1, 3) else [type(None)] * 5)
    assert blocks[1].before_attention is not blocks[1].before_ffn


def test_settings_of_the_memory_reach_its_layers():
    model = build(replace(SMALL, d_key=None, norm="none", value_dtype="bfloat16", topk=4), blocks=[1])
    memory = model.blocks[1].ffn
    assert memory.lookup.keys.shape == (2, 2, 5, 2)  # d_key: half of d_model
    assert memory.lookup.gains is None
    assert memory.pool.values.shape == (25, D_MODEL) and memory.pool.values.dtype == torch.bfloat16
    out = model(torch.arange(NUM_TOKENS)[None])
    assert out.reads["1.ffn"].slots.shape == (1, NUM_TOKENS, 2 * 4)
