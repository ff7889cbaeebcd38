"""Transformers: against their twin of loops, who shares a pool, and what the parameters start as."""

import dataclasses

import naive
import pytest
import torch
from torch import nn

from memlayers.config import FFNConfig, MemoryConfig, ModelConfig
from memlayers.layers.beside import Beside
from memlayers.layers.dense import SwiGLU
from memlayers.layers.memory import ProductKeyMemory
from memlayers.layers.memory_plus import MemoryPlus
from memlayers.model import Transformer, build_model, parameters_with_roles

MEMORY = MemoryConfig(num_keys=5, heads=2, topk=3, d_key=4)
PLUS = dataclasses.replace(MEMORY, name="memory_plus")
FFNS = {"dense": FFNConfig(), "memory": MEMORY, "memory_plus": PLUS}
NUM_TOKENS = 11


def build(ffn: FFNConfig, seed: int = 0, **changes) -> Transformer:
    config = ModelConfig(**{"ffn": ffn, "blocks": "all", "d_model": 8, "depth": 2, "hidden": 6} | changes)
    config.validate()
    return build_model(config, NUM_TOKENS, torch.Generator().manual_seed(seed))


def shaken(model: Transformer) -> Transformer:
    """Away from the start, where embeddings are so small that attention and norms hardly matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.5)
    return model


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("changes", [{}, {"placement": "add", "blocks": [1], "tied_head": False}], ids=["all", "add"])
def test_logits_equal_those_of_the_twin(ffn, changes):
    model, tokens = shaken(build(FFNS[ffn], **changes)), torch.randint(NUM_TOKENS, (2, 4))
    with torch.no_grad():
        got, wanted = model(tokens).logits.unflatten(0, (2, 4)), naive.transformer(model, tokens)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ffn", FFNS)
def test_a_token_changes_nothing_before_it_and_nothing_in_other_documents(ffn):
    model, tokens = shaken(build(FFNS[ffn])), torch.randint(NUM_TOKENS - 1, (3, 6))
    for position in range(6):
        other = tokens.clone()
        other[1, position] += 1
        changed = (model(tokens).logits != model(other).logits).any(dim=-1).view(3, 6)
        assert changed.nonzero().tolist() == [[1, later] for later in range(position, 6)]


@pytest.mark.parametrize("ffn", FFNS)
def test_asking_at_some_positions_gives_their_rows_in_reading_order(ffn):
    model, tokens = shaken(build(FFNS[ffn])), torch.randint(NUM_TOKENS, (3, 6))
    where = torch.rand(3, 6) < 0.5
    everywhere, some = model(tokens), model(tokens, where)
    torch.testing.assert_close(some.logits, everywhere.logits.view(3, 6, -1)[where])
    assert list(some.reads) == ([] if ffn == "dense" else [0, 1])
    for index, reads in some.reads.items():
        assert reads.slots.shape == (3, 6, 6) and reads.slots.equal(everywhere.reads[index].slots)


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("tied_head", [True, False])
def test_every_parameter_learns(ffn, tied_head):
    model = build(FFNS[ffn], placement="add", tied_head=tied_head)
    tokens = torch.randint(NUM_TOKENS, (16, 8))
    nn.functional.cross_entropy(model(tokens[:, :-1]).logits, tokens[:, 1:].flatten()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.to_dense().any()]


def pools_read(model: Transformer) -> list[int]:
    memories = [block.ffn.memory if isinstance(block.ffn, Beside) else block.ffn for block in model.blocks]
    return [id(memory.pool) for memory in memories if not isinstance(memory, SwiGLU)]


@pytest.mark.parametrize("placement", ["replace", "add"])
def test_memory_plus_shares_one_pool_and_memory_has_one_each(placement):
    for ffn, distinct in ((MEMORY, 3), (PLUS, 1)):
        model = build(ffn, depth=3, placement=placement)
        assert len(pools_read(model)) == 3 and len(set(pools_read(model))) == distinct
        assert [id(pool) for pool in model.pools] == list(dict.fromkeys(pools_read(model)))
        names = [name for name, _ in model.named_parameters() if name.endswith("values")]
        assert names == [f"pools.{index}.values" for index in range(distinct)]
        assert len({id(parameter) for parameter in model.parameters()}) == len(list(model.parameters()))


def test_what_one_block_writes_into_a_shared_pool_the_other_reads():
    model, tokens = shaken(build(PLUS)), torch.randint(NUM_TOKENS, (2, 4))
    before = [model.blocks[index].ffn(torch.ones(1, 1, 8)).hidden for index in (0, 1)]
    with torch.no_grad():
        model.blocks[0].ffn.pool.values.mul_(2)
    for index in (0, 1):
        torch.testing.assert_close(model.blocks[index].ffn(torch.ones(1, 1, 8)).hidden, 2 * before[index])
    out = model(tokens)
    out.logits.sum().backward()
    read = torch.cat([reads.slots.flatten() for reads in out.reads.values()]).unique()
    assert model.pools[0].values.grad.coalesce().indices()[0].equal(read)


@pytest.mark.parametrize("ffn", FFNS)
def test_a_state_round_trips_and_holds_each_table_once(ffn, tmp_path):
    first, second, tokens = shaken(build(FFNS[ffn])), build(FFNS[ffn], seed=1), torch.randint(NUM_TOKENS, (2, 4))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt")
    second.load_state_dict(saved)
    assert first(tokens).logits.equal(second(tokens).logits)
    assert len(set(pools_read(second))) == len(set(pools_read(first)))
    storages = {one.untyped_storage().data_ptr() for name, one in saved.items() if name.endswith("values")}
    assert len(storages) == len(first.pools)


@pytest.mark.parametrize("ffn", FFNS)
def test_two_models_share_nothing(ffn):
    first, second, tokens = build(FFNS[ffn]), build(FFNS[ffn]), torch.randint(NUM_TOKENS, (2, 4))
    before = second(tokens).logits
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(float("nan"))
    assert second(tokens).logits.equal(before)


@pytest.mark.parametrize("ffn", FFNS)
def test_a_seed_decides_the_parameters_and_nothing_else_does(ffn):
    torch.manual_seed(1)
    first = build(FFNS[ffn])
    torch.manual_seed(2)
    same, other = build(FFNS[ffn]), build(FFNS[ffn], seed=1)
    for (name, mine), theirs, elsewhere in zip(
        first.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert mine.equal(theirs)
        assert mine.ndim == 1 or not mine.equal(elsewhere), name


def test_blocks_and_placement_decide_what_stands_where():
    def kinds(ffn: FFNConfig, **changes) -> list[type]:
        return [type(block.ffn) for block in build(ffn, depth=4, **changes).blocks]

    assert kinds(FFNConfig()) == [SwiGLU] * 4
    assert kinds(MEMORY, blocks="middle") == [SwiGLU, SwiGLU, ProductKeyMemory, SwiGLU]
    assert kinds(PLUS, blocks=[0, 3]) == [MemoryPlus, SwiGLU, SwiGLU, MemoryPlus]
    assert kinds(MEMORY, blocks=0.25, placement="add") == [SwiGLU, Beside, SwiGLU, SwiGLU]


def test_settings_of_the_memory_reach_its_layers():
    ffn = dataclasses.replace(MEMORY, d_key=None, qk_norm=False, sparse=False, value_dtype="bfloat16", topk=4)
    model = build(ffn, blocks=[1])
    memory = model.blocks[1].ffn
    assert memory.lookup.keys.shape == (2, 2, 5, 2)  # d_key: half of d_model
    assert memory.lookup.gains is None
    assert memory.pool.values.shape == (25, 8) and memory.pool.values.dtype == torch.bfloat16
    out = model(torch.arange(NUM_TOKENS)[None])
    assert out.reads[1].slots.shape == (1, NUM_TOKENS, 2 * 4)
    out.logits.sum().backward()
    assert not memory.pool.values.grad.is_sparse


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("value_dtype", ["float32", "bfloat16"])
def test_parameters_start_with_the_spread_that_is_promised(ffn, value_dtype):
    """init_parameters: 1 / sqrt(width of the input or row); outputs / sqrt(2 * depth); embeddings as set; gains 1."""
    d_model, depth, hidden, num_tokens = 64, 3, 96, 300
    settings = FFNS[ffn]
    if isinstance(settings, MemoryConfig):
        settings = dataclasses.replace(settings, num_keys=40, d_key=32, value_dtype=value_dtype)
    config = ModelConfig(settings, "all", "add", d_model, depth, hidden=hidden, tied_head=False, embedding_std=0.7)
    model = build_model(config, num_tokens, torch.Generator().manual_seed(0))
    into_residual = (2 * depth) ** -0.5
    promised = {
        "to_qkv.weight": d_model**-0.5,
        "attention.out.weight": d_model**-0.5 * into_residual,
        "up.weight": d_model**-0.5,
        "down.weight": hidden**-0.5 * into_residual,
        "to_query.weight": d_model**-0.5,
        "lookup.keys": 16**-0.5,
        "values": d_model**-0.5,
        "gate.weight": d_model**-0.5,
        "memory.out.weight": d_model**-0.5 * into_residual,
        "embedding.weight": 0.7,
        "head.weight": d_model**-0.5,
    }
    met = set()
    for name, _, parameter in parameters_with_roles(model):
        if parameter.ndim == 1:
            assert parameter.equal(torch.ones_like(parameter)) and ("norm" in name or "gains" in name)
            continue
        (key,) = [ending for ending in promised if name.endswith(ending)]
        met.add(key)
        error = 4 / parameter.numel() ** 0.5  # of a mean or a spread over so many draws, with room
        drawn = parameter.double() / promised[key]
        assert abs(drawn.mean()) < error and abs(drawn.std() - 1) < error, name
        assert (drawn.abs() > 2).double().mean() == pytest.approx(0.0455, abs=0.01), name  # normal, not uniform
    memory = {"to_query.weight", "lookup.keys", "values"}
    plus = memory | {"gate.weight", "memory.out.weight"}
    assert met == set(promised) - {"dense": plus, "memory": plus - memory, "memory_plus": set()}[ffn]
