"""Costs against what PyTorch's FLOP counter sees, to the last FLOP; and the solver that matches arms."""

import dataclasses
import math
import os
import re

import pytest
import torch
from flops import count
from hypothesis import given, settings
from hypothesis import strategies as st

from memlayers import cost as cost_module
from memlayers.config import AtlasConfig, MatchConfig, ModelConfig
from memlayers.cost import available_memory, model_cost, refuse_too_large, solve
from memlayers.facts import build_world
from memlayers.kernels import REFERENCE
from memlayers.layers import Dense, Memory, NGram
from memlayers.layers.attention import Attention
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.feedforward import Cost, Workload, matrix_cost
from memlayers.layers.gated_memory import GatedMemory
from memlayers.layers.lookup import ProductKeyLookup
from memlayers.layers.memory import ProductKeyMemory
from memlayers.layers.pool import MemoryPool
from memlayers.model import build_model
from memlayers.optim import SGD, DenseAdamW, LazyAdam, RowwiseAdagrad
from memlayers.text import Text

WORK = Workload(sequence=4.0, scored=2.0, tokens=1024)
NUM_TOKENS = 551


def seen(layer: torch.nn.Module, batch: int, sequence: int, d_model: int) -> tuple[int, int]:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = torch.randn(batch, sequence, d_model, requires_grad=True)
    tokens = torch.ones(batch, sequence, dtype=torch.long)
    return count(lambda: layer(x) if isinstance(layer, Attention) else layer(x, tokens).hidden)


def told(layer: SwiGLU | Attention, batch: int, sequence: int) -> tuple[int, int]:
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
        qk_norm=draw(st.booleans()),
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
    for layer in (SwiGLU(12, 20), SwiGLU(6, 1), Attention(12, 3), Attention(8, 1)):
        d_model = layer.down.out_features if isinstance(layer, SwiGLU) else layer.out.out_features
        assert told(layer, batch, sequence) == seen(layer, batch, sequence, d_model)


def test_a_layer_beside_another_costs_the_sum():
    memory = ProductKeyMemory(ProductKeyLookup(12, num_keys=9, heads=2, topk=3, d_key=4), MemoryPool(81, 12))
    assert told(Beside(SwiGLU(12, 20), memory), 2, 5) == seen(Beside(SwiGLU(12, 20), memory), 2, 5, 12)


def test_more_tokens_a_step_cost_more_to_sort_and_nothing_else():
    pool = MemoryPool(16, 8)
    small, large = (pool.read_cost(32, Workload(4, 2, tokens)) for tokens in (1024, 4096))
    assert small.forward == large.forward and large.backward - small.backward == 2 * 32


def test_costs_add_and_a_matrix_costs_twice_its_size_forward_and_four_times_backward():
    assert matrix_cost(3, 5) == Cost(30, 60, 60, 15)
    assert matrix_cost(3, 5) + Cost(1, 2, 3, 4) == Cost(31, 62, 63, 19)


def test_bytes_read_are_the_weights_and_the_rows_that_a_token_needs():
    lookup = ProductKeyLookup(12, num_keys=9, heads=2, topk=3, d_key=4, qk_norm=False)
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        layer = ProductKeyMemory(lookup, MemoryPool(81, 12, dtype=dtype))
        weights = lookup.to_query.weight.numel() + lookup.keys.numel()
        assert layer.cost(WORK).bytes_read == 4 * weights + 2 * 3 * 12 * size


FFNS = {
    "dense": Dense(),
    "memory": Memory(num_keys=12, heads=2, topk=5, d_key=6),
    "gated and shared": Memory(num_keys=12, heads=2, topk=5, d_key=6, pool="shared", gate=True),
    "no norms": Memory(num_keys=12, heads=2, topk=5, qk_norm=False),
    "n-grams": NGram(num_slots=50, hashes=3),
}


@pytest.fixture(scope="module")
def text():
    return Text(build_world(AtlasConfig(name="readings", num_subjects=500)), "terse")


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("placement", ["replace", "add"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("blocks", ["middle", "all"])
def test_a_whole_model_costs_what_the_counter_sees_and_has_the_parameters_it_says(text, ffn, placement, sparse, blocks):
    extras = {} if sparse else {"residual": NGram(num_slots=9), "values": NGram(num_slots=9)}
    config = ModelConfig(FFNS[ffn], blocks, placement, **extras, d_model=16, depth=3, hidden=22, tied_head=sparse)
    num_tokens = len(text.vocabulary)
    model = build_model(config, num_tokens, torch.Generator().manual_seed(0), sparse=sparse)
    tokens, answers = text.sample(32, torch.Generator().manual_seed(0))
    tokens, where = tokens[:, :-1], answers[:, 1:]
    assert (tokens != 0).all() and 0 < where.sum() < where.numel()
    work = Workload(tokens.shape[1], int(where.sum()) / len(tokens), tokens.numel())
    cost = model.cost(work)
    forward, backward = count(lambda: model(tokens, where).logits)
    assert (cost.forward * tokens.numel(), cost.backward * tokens.numel()) == (forward, backward)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert model_cost(config, num_tokens, work, sparse) == cost


def size(config: ModelConfig, by: str) -> float:
    cost = model_cost(config, NUM_TOKENS, WORK)
    return cost.params if by == "params" else cost.flops


MEMORY = Memory(num_keys=64, heads=4, topk=8, d_key=16)
PLUS = dataclasses.replace(MEMORY, pool="shared", gate=True)


@pytest.mark.parametrize("times", [1.0, 3.7])
@pytest.mark.parametrize(
    ("by", "spend"),
    [
        *(("flops", spend) for spend in ("width", "hidden", "depth", "longer")),
        ("params", "width"),
        ("params", "hidden"),
    ],
)
@pytest.mark.parametrize("arm", [Dense(), PLUS], ids=["dense", "gated"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_a_matched_arm_is_within_half_a_hidden_unit_or_half_of_what_hidden_is_a_multiple_of(
    arm, by, spend, times, multiple
):
    config = ModelConfig(arm, "middle", d_model=32, depth=3, hidden=88)
    matched = solve(config, MatchConfig(MEMORY, by, times, spend, multiple), NUM_TOKENS, WORK)
    target = size(dataclasses.replace(config, ffn=MEMORY), by) * (1 if spend == "longer" else times)
    assert matched.target == target and matched.reached == size(matched.model, by)
    assert matched.cost == model_cost(matched.model, NUM_TOKENS, WORK)
    assert matched.model.hidden % multiple == 0
    unit = size(dataclasses.replace(matched.model, hidden=matched.model.hidden + multiple), by) - matched.reached
    assert unit > 0 and abs(matched.reached - target) <= unit / 2
    assert matched.steps == (times if spend == "longer" else 1.0)
    matched.model.validate()


def test_what_is_spent_on_is_what_grows():
    config = ModelConfig(d_model=32, depth=4, hidden=88, num_heads=2)

    def solved(spend: str) -> ModelConfig:
        return solve(config, MatchConfig(MEMORY, "flops", 4.0, spend), NUM_TOKENS, WORK).model

    kept = dataclasses.asdict(config)
    for spend, free in (("width", {"d_model", "hidden"}), ("depth", {"depth", "hidden"}), ("hidden", {"hidden"})):
        model = dataclasses.asdict(solved(spend))
        assert {key for key in kept if model[key] != kept[key]} == free
        assert all(model[key] >= kept[key] for key in ("d_model", "depth"))
    wide = solved("width")
    assert wide.hidden / wide.d_model == pytest.approx(config.hidden / config.d_model, rel=0.1)
    assert solved("depth").hidden == pytest.approx(config.hidden, rel=0.2)


def test_without_a_reference_the_model_stays_as_it_is_written():
    config = ModelConfig(MEMORY)
    matched = solve(config, MatchConfig(), NUM_TOKENS, WORK)
    assert matched.model == config and matched.steps == 1.0 and matched.target == matched.reached


def test_a_reference_meets_itself():
    config = ModelConfig(MEMORY, hidden=77)
    for by in ("flops", "params"):
        matched = solve(config, MatchConfig(MEMORY, by, 1.0, "hidden"), NUM_TOKENS, WORK)
        assert matched.model == config and matched.reached == matched.target


def test_a_reference_that_is_cheaper_than_the_smallest_model_is_one_line():
    config = ModelConfig(PLUS, hidden=1, depth=1, placement="add")
    match = MatchConfig(dataclasses.replace(MEMORY, heads=1, topk=1), "flops", 1.0, "hidden")
    with pytest.raises(ValueError, match=r"^match.times=1.0: the smallest model costs [^\n]*$") as error:
        solve(config, match, NUM_TOKENS, WORK)
    accepted = float(str(error.value).rpartition("accepted: ")[2].partition(" ")[0])
    matched = solve(config, dataclasses.replace(match, times=accepted), NUM_TOKENS, WORK)
    assert matched.model.hidden <= 3
    with pytest.raises(ValueError, match=r"accepted: [0-9.]+ or more, or less than match.multiple_of=1000$"):
        solve(ModelConfig(d_model=32), MatchConfig(MEMORY, multiple_of=1000), NUM_TOKENS, WORK)
    with pytest.raises(ValueError, match=r"^match.spend=longer: the smallest model costs [^\n]*accepted: width, "):
        solve(config, dataclasses.replace(match, spend="longer"), NUM_TOKENS, WORK)


def test_a_smallest_model_a_little_above_the_target_is_refused_too():
    """Matched means within half a hidden unit, not within some percent."""
    config = ModelConfig(MEMORY, hidden=1, d_model=32)
    whole, unit = size(config, "flops"), size(dataclasses.replace(config, hidden=2), "flops") - size(config, "flops")
    match = MatchConfig(MEMORY, "flops", 1 - unit / whole, "hidden")
    assert match.times > 0.95
    with pytest.raises(ValueError, match="the smallest model costs"):
        solve(config, match, NUM_TOKENS, WORK)


@pytest.mark.parametrize("arm", [MEMORY, PLUS], ids=["memory", "gated"])
@pytest.mark.parametrize("spend", ["hidden", "width", "depth", "longer"])
def test_a_model_without_a_dense_feed_forward_cannot_be_trimmed_and_says_so(arm, spend):
    config = ModelConfig(arm, blocks="all")
    other = PLUS if arm is MEMORY else MEMORY
    with pytest.raises(ValueError, match=r"^match.spend=[^\n]*accepted: [^\n]*$"):
        solve(config, MatchConfig(other, "flops", 2.0, spend), NUM_TOKENS, WORK)
    matched = solve(
        dataclasses.replace(config, placement="add"), MatchConfig(other, "flops", 2.0, spend), NUM_TOKENS, WORK
    )
    assert math.isclose(matched.reached, matched.target, rel_tol=0.01)


@pytest.mark.parametrize("arm", [Dense(), MEMORY], ids=["dense", "memory"])
def test_depth_is_found_where_the_blocks_of_the_memory_are_listed(arm):
    config = ModelConfig(arm, blocks=[1], depth=2)
    matched = solve(config, MatchConfig(MEMORY, "flops", 3.0, "depth"), NUM_TOKENS, WORK)
    assert matched.model.depth >= 4 and matched.model.blocks == [1]
    matched.model.validate()


RULES = [LazyAdam(), LazyAdam(rowwise=True), RowwiseAdagrad(), SGD(), DenseAdamW()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_tables_that_do_not_fit_are_refused_with_their_sizes(rule, monkeypatch):
    """What fits by the message fits, and one row more does not."""
    monkeypatch.setattr(cost_module, "available_memory", lambda: 10 * 2**20)
    tables = NGram(num_slots=4_000_000)
    with pytest.raises(ValueError, match=r"^model: value tables of 0.5 GiB and optimizer state of") as caught:
        refuse_too_large(ModelConfig(tables), NUM_TOKENS, rule)
    assert "0.0 GiB that are available" in str(caught.value) and "\n" not in str(caught.value)
    most = int(re.search(r"up to ([\d,]+) rows in all instead of 4,000,000", str(caught.value))[1].replace(",", ""))
    refuse_too_large(ModelConfig(NGram(num_slots=most)), NUM_TOKENS, rule)
    with pytest.raises(ValueError):
        refuse_too_large(ModelConfig(NGram(num_slots=most + 1)), NUM_TOKENS, rule)
    refuse_too_large(ModelConfig(), NUM_TOKENS, rule)


def test_a_shared_table_is_counted_once_and_own_ones_each(monkeypatch):
    one = 64**2 * 32 * 4
    for pool, tables in (("shared", 1), ("own", 3)):
        config = ModelConfig(dataclasses.replace(MEMORY, pool=pool), "all", depth=3)
        for free, fits in ((tables * one, True), (tables * one - 1, False)):
            monkeypatch.setattr(cost_module, "available_memory", lambda free=free: free)
            try:
                refuse_too_large(config, NUM_TOKENS, SGD())
                assert fits
            except ValueError:
                assert not fits


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_state_that_is_counted_is_the_state_that_is_made(rule):
    values = torch.nn.Parameter(torch.zeros(50, 32))
    optimizer = rule.build([values], REFERENCE)
    values.grad = torch.ones_like(values) if not rule.sparse else torch.ones_like(values).to_sparse(1)
    optimizer.step()
    state = [one for one in optimizer.state[values].values() if isinstance(one, torch.Tensor) and one.ndim == 2]
    made = sum(one.numel() * one.element_size() for one in state)
    gradient = 0 if rule.sparse else values.numel() * 4
    assert made + gradient == len(values) * rule.state_bytes(32, 4)


def test_available_memory_is_some_and_no_more_than_there_is():
    assert 2**20 < available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
