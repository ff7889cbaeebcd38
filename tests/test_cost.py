"""Costs against what PyTorch's FLOP counter sees, to the last FLOP."""

import pytest
import torch
from contract import CASES, D_MODEL, QUESTIONS, beside, site
from flops import count
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import seeded

from memlayers.config import AtlasConfig, ModelConfig
from memlayers.config.model import PLACES
from memlayers.cost import model_cost
from memlayers.facts import build_world
from memlayers.layers.attention import Attention
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.engram import GatedNGrams
from memlayers.layers.feedforward import Cost, FeedForward, Workload, matrix_cost
from memlayers.layers.lookup import NORMS, SCORES, ProductKeyLookup
from memlayers.layers.memory import GatedMemory, Memory, ProductKeyMemory
from memlayers.layers.ngram import NGramTable
from memlayers.layers.peer import Peer
from memlayers.layers.pool import MemoryPool
from memlayers.layers.sharded_pool import wire_bytes
from memlayers.layers.short_conv import ShortConvolution
from memlayers.model import build_model
from memlayers.optim.rules import LazyAdam, RowwiseAdagrad
from memlayers.shares import reads_of, share_of
from memlayers.text import Text

WORK = Workload(sequence=4.0, scored=2.0, tokens=1024)


def seen(layer: torch.nn.Module, batch: int, sequence: int, d_model: int) -> tuple[int, int]:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = torch.randn(batch, sequence, d_model, requires_grad=True)
    tokens = torch.ones(batch, sequence, dtype=torch.long)
    forward, backward = count(lambda: layer(x) if isinstance(layer, Attention) else layer(x, tokens).hidden)
    return forward + uncounted(layer) * batch * sequence, backward + 2 * uncounted(layer) * batch * sequence


def uncounted(model: torch.nn.Module) -> int:
    """Of Engram, whose gate compares key and stream, and whose taps weigh positions, by element-wise products."""
    engrams = [module for module in model.modules() if isinstance(module, GatedNGrams)]
    parts = [part for one in engrams for part in (one.key_norm, one.taps) if part is not None]
    return sum(2 * part.weight.numel() for part in parts) * getattr(model, "loops", 1)


def told(layer: FeedForward | Attention, batch: int, sequence: int) -> tuple[int, int]:
    """Costs of all tokens. A sum per token is exact in float64, and so is its product with the tokens."""
    tokens = batch * sequence
    cost = layer.cost(Workload(sequence, sequence, tokens))
    assert cost.flops == cost.forward + cost.backward
    return cost.forward * tokens, cost.backward * tokens


@st.composite
def memories(draw):
    """Many shapes: k that is no power of two, one read a token, values that are not d_model wide.

    Half keys are 2 wide or more: of 1 wide ones einsum makes element-wise products, which the counter leaves out.
    """
    d_model, heads, width = draw(st.sampled_from([2, 6, 16])), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    n = draw(st.integers(1, 20))
    lookup = ProductKeyLookup(
        d_model,
        num_keys=n,
        heads=heads,
        topk=draw(st.integers(1, n)),
        d_key=2 * width,
        norm=draw(st.sampled_from(NORMS)),
        score=draw(st.sampled_from(SCORES)),
    )
    sparse, gated = draw(st.booleans()), draw(st.booleans())
    pool = MemoryPool(n * n, draw(st.integers(1, 9)) if gated else d_model, sparse=sparse)
    return GatedMemory(d_model, lookup, pool) if gated else ProductKeyMemory(lookup, pool)


@given(layer=memories(), batch=st.integers(1, 3), sequence=st.integers(1, 5))
@settings(max_examples=60)
def test_memories_cost_what_the_counter_sees(layer, batch, sequence):
    assert told(layer, batch, sequence) == seen(layer, batch, sequence, layer.lookup.to_query.in_features)


@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (3, 7)])
def test_dense_layers_and_attention_cost_what_the_counter_sees(batch, sequence):
    for layer in (
        DenseFeedForward(12, 20),
        DenseFeedForward(6, 1),
        DenseFeedForward(12, 20, gated=False),
        DenseFeedForward(6, 1, gated=False),
        Attention(12, 3),
        Attention(8, 1),
    ):
        d_model = layer.out.out_features if isinstance(layer, Attention) else layer.down.out_features
        assert told(layer, batch, sequence) == seen(layer, batch, sequence, d_model)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (3, 7)])
def test_every_layer_costs_what_the_counter_sees_and_beside_a_dense_one_the_sum(case, sparse, batch, sequence):
    for make in (lambda where: CASES[case].build(where), lambda where: beside(CASES[case], where)):
        layer = make(site(sparse))
        assert told(layer, batch, sequence) == seen(layer, batch, sequence, D_MODEL)
        in_pools = sum(module.pool.values.numel() for module in layer.modules() if hasattr(module, "pool"))
        assert layer.cost(WORK).params + in_pools == sum(parameter.numel() for parameter in layer.parameters())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 6))
def test_a_short_convolution_costs_what_the_counter_sees(d_model, width, batch, sequence):
    layer = ShortConvolution(d_model, width)
    assert told(layer, batch, sequence) == seen(layer, batch, sequence, d_model)


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_a_table_of_ngrams_costs_what_the_counter_sees(width, hashes, batch, sequence, sparse):
    layer = NGramTable(MemoryPool(20, width, sparse=sparse), 2, hashes)
    assert told(layer, batch, sequence) == seen(layer, batch, sequence, width)


def test_more_tokens_a_step_cost_more_to_sort_and_nothing_else():
    pool = MemoryPool(16, 8)
    small, large = (pool.read_cost(32, Workload(4, 2, tokens)) for tokens in (1024, 4096))
    assert small.forward == large.forward and large.backward - small.backward == 2 * 32


def test_costs_add_and_a_matrix_costs_twice_its_size_forward_and_four_times_backward():
    assert matrix_cost(3, 5) == Cost(30, 60, 60, 15)
    assert matrix_cost(3, 5) + Cost(1, 2, 3, 4) == Cost(31, 62, 63, 19)


def test_bytes_read_are_the_weights_and_the_rows_that_a_token_needs():
    lookup = ProductKeyLookup(12, num_keys=9, heads=2, topk=3, d_key=4, norm="none")
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        layer = ProductKeyMemory(lookup, MemoryPool(81, 12, dtype=dtype))
        weights = lookup.to_query.weight.numel() + lookup.keys.numel()
        assert layer.cost(WORK).bytes_read == 4 * weights + 2 * 3 * 12 * size


@pytest.fixture(scope="module")
def text():
    return Text(build_world(AtlasConfig(name="readings", num_subjects=500)), "terse")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "where",
    [
        {"blocks": "middle"},
        {"blocks": "all", "placement": "add", "tied_head": False},
        {"extra_blocks": [0, 2], "tied_head": False},
        {"blocks": [1], "loops": 3},
    ],
    ids=["middle", "added", "elsewhere", "looped"],
)
@pytest.mark.parametrize("sparse", [True, False])
def test_a_whole_model_costs_what_the_counter_sees_and_has_the_parameters_it_says(text, case, where, sparse):
    places = PLACES if "extra_blocks" in where else ("ffn",)
    config = ModelConfig(**where, **dict.fromkeys(places, CASES[case]), d_model=16, depth=3, hidden=22)
    num_tokens = len(text.vocabulary)
    model = build_model(config, num_tokens, seeded(), sparse=sparse, questions=QUESTIONS)
    tokens, answers, _ = text.sample(32, seeded())
    tokens, where = tokens[:, :-1], answers[:, 1:]
    assert (tokens != 0).all() and 0 < where.sum() < where.numel()
    work = Workload(tokens.shape[1], int(where.sum()) / len(tokens), tokens.numel())
    cost = model.cost(work)
    forward, backward = count(lambda: model(tokens, where).logits)
    more = uncounted(model) * tokens.numel()
    assert (cost.forward * tokens.numel(), cost.backward * tokens.numel()) == (forward + more, backward + 2 * more)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert model_cost(config, num_tokens, work, sparse, QUESTIONS) == cost


def test_a_process_holds_its_columns_and_sends_what_each_layer_reads():
    config = ModelConfig(d_model=16, depth=2, blocks=[0, 1], ffn=Memory(num_keys=8, heads=2, topk=4, pool="shared"))
    work, ranks = Workload(4.0, 1.0, 64), 4
    found = share_of(config, 30, work, RowwiseAdagrad(), ranks)
    model = build_model(config, 30)
    others = sum(p.numel() for p in model.parameters()) - 64 * 16
    assert found.table_bytes == 4 * 64 * 16 // ranks and found.state_bytes == 4 * 64, "the number a row is whole"
    assert found.other_bytes == 16 * others
    ring = 2 * 3 / 4 * 4
    assert found.sent_bytes == 2 * wire_bytes(16, 8, 16, ranks) + ring * (others + 64)
    lazily = share_of(config, 30, work, LazyAdam(), ranks)
    assert lazily.state_bytes == 2 * found.table_bytes and lazily.sent_bytes == found.sent_bytes - ring * 64
    with pytest.raises(ValueError, match="a table 16 wide cannot be cut into columns for 3 processes"):
        share_of(config, 30, work, LazyAdam(), 3)


def test_rows_that_are_not_summed_are_sent_one_by_one():
    with torch.device("meta"):
        config = ModelConfig(d_model=16, depth=2, blocks=[0], ffn=Peer(num_keys=8, heads=2, topk=4))
        model = build_model(config, 30)
    assert [reads_of(model, pool) for pool in model.tables()] == [[(8, 1)]]
    model.loops = 3
    assert [reads_of(model, pool) for pool in model.tables()] == [3 * [(8, 1)]]
    assert wire_bytes(10, 1, 32, 2) == 10 * (16 + 4 * 32)
