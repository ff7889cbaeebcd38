"""Transformers: against their twin of loops, wherever a layer stands, who shares a pool, and what states hold."""

import copy
from dataclasses import replace

import naive
import pytest
import torch
from contract import CASES, D_MODEL, FIRST, NUM_TOKENS, SMALL, TABLES, build, drawn, entry_of, random_tokens, site, twin
from torch import nn

from memlayers.layers import NGram, ShortConv
from memlayers.layers.beside import Beside
from memlayers.model import Transformer

# Where a layer may stand, as settings of the model and the places by which reads are known.
PLACES = {
    "ffn": ({"blocks": "all"}, ["0.ffn", "1.ffn"]),
    "added ffn": ({"blocks": [1], "placement": "add", "tied_head": False}, ["1.ffn"]),
    "residual": ({}, ["0.residual", "1.residual"]),
    "values": ({"extra_blocks": [1]}, ["1.values"]),
    "beside": ({"extra_blocks": [1]}, ["1.beside"]),
    "before": ({"extra_blocks": [0]}, ["0.before_attention", "0.before_ffn"]),
}
EVERYWHERE = pytest.mark.parametrize(
    ("place", "case"),
    [("ffn", case) for case in CASES] + [(place, case) for place in PLACES if place != "ffn" for case in FIRST],
)


def build_at(place: str, settings, **changes) -> Transformer:
    own, field = PLACES[place][0], "ffn" if "ffn" in place else place
    return drawn(build(**{field: settings} | own | changes))


@EVERYWHERE
def test_logits_equal_those_of_the_twin(place, case):
    model, tokens = build_at(place, CASES[case]), random_tokens(2, 4)
    with torch.no_grad():
        got, wanted = model(tokens).logits.unflatten(0, (2, 4)), naive.transformer(model, tokens, twin)
    exact = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    near = {"rtol": 1e-3, "atol": 1e-4} if exact else {"rtol": 3e-2, "atol": 6e-2}
    torch.testing.assert_close(got, wanted, **near)


def test_logits_of_a_model_with_a_layer_at_every_place_equal_those_of_the_twin():
    extras = {"residual": NGram(2, 50, 2), "values": NGram(1, 30, 1), "before": ShortConv(3), "beside": NGram(3, 40, 1)}
    model, tokens = drawn(build(SMALL, placement="add", depth=3, **extras)), random_tokens(2, 4)
    with torch.no_grad():
        got, wanted = model(tokens).logits.unflatten(0, (2, 4)), naive.transformer(model, tokens, twin)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    assert list(model(tokens).reads) == [
        f"{i}.{place}" for i in range(3) for place in ("residual", "values", "ffn", "beside")
    ]
    for place in ("residual", "values", "before_attention", "before_ffn", "beside"):
        without = copy.deepcopy(model)
        for block in without.blocks:
            setattr(block, place, None)
        assert not without(tokens).logits.unflatten(0, (2, 4)).allclose(got, atol=1e-2), place


@EVERYWHERE
def test_a_token_changes_nothing_before_it_and_nothing_in_other_documents(place, case):
    model, tokens = build_at(place, CASES[case]), torch.randint(NUM_TOKENS - 1, (3, 6))
    for position in range(6):
        other = tokens.clone()
        other[1, position] += 1
        limit = 10 * entry_of(CASES[case]).rounding
        changed = ((model(tokens).logits - model(other).logits).abs() > limit).any(dim=-1).view(3, 6)
        assert changed.nonzero().tolist() == [[1, later] for later in range(position, 6)]


@EVERYWHERE
def test_asking_at_some_positions_gives_their_rows_in_reading_order(place, case):
    model, tokens, where = build_at(place, CASES[case]), random_tokens(3, 6), torch.rand(3, 6) < 0.5
    everywhere, some = model(tokens), model(tokens, where)
    torch.testing.assert_close(some.logits, everywhere.logits.view(3, 6, -1)[where])
    assert list(some.reads) == (PLACES[place][1] if case in TABLES else [])
    assert (some.aux_loss is None) == (everywhere.aux_loss is None)
    for name, reads in some.reads.items():
        assert reads.slots.shape[:2] == (3, 6) and reads.slots.equal(everywhere.reads[name].slots)


@EVERYWHERE
@pytest.mark.parametrize("tied_head", [True, False])
def test_every_parameter_learns(place, case, tied_head):
    model, tokens = build_at(place, CASES[case], tied_head=tied_head), random_tokens(16, 8)
    nn.functional.cross_entropy(model(tokens[:, :-1]).logits, tokens[:, 1:].flatten()).backward()
    learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    still = {name for name, grad in learned.items() if grad is None or not grad.to_dense().any()}
    unheard = {"ffn": ["0.ffn", "1.ffn"], "before": ["0.attention", "0.ffn"]}.get(place, [])
    assert still == (set() if hears(CASES[case]) else {f"blocks.{norm}_norm.weight" for norm in unheard})


def hears(settings) -> bool:
    """Whether a layer looks at x, not at tokens alone: else the norm before it has nothing to learn."""
    x = torch.randn(2, 3, D_MODEL, requires_grad=True)
    settings.build(site())(x, random_tokens(2, 3)).hidden.sum().backward()
    return x.grad is not None


def pools_read(model: Transformer) -> list[int]:
    layers = [block.ffn.layer if isinstance(block.ffn, Beside) else block.ffn for block in model.blocks]
    return [id(layer.pool) for layer in layers if hasattr(layer, "pool")]


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("placement", ["replace", "add"])
def test_pools_are_registered_once_however_many_layers_read_them(case, placement):
    model, distinct = build(TABLES[case], depth=3, placement=placement), 1 if TABLES[case].pool == "shared" else 3
    assert len(pools_read(model)) == 3 and len(set(pools_read(model))) == distinct
    assert [id(pool) for pool in model.pools] == list(dict.fromkeys(pools_read(model)))
    assert [id(pool) for pool in model.tables()] == [id(pool) for pool in model.pools]
    names = [name for name, _ in model.named_parameters() if name.endswith("values")]
    assert names == [f"pools.{index}.values" for index in range(distinct)]
    assert len({id(parameter) for parameter in model.parameters()}) == len(list(model.parameters()))


def test_a_shared_pool_is_that_of_all_places():
    shared = NGram(n=2, num_slots=SMALL.num_keys**2, hashes=2, pool="shared")
    model = drawn(build(replace(SMALL, pool="shared"), residual=shared, values=replace(shared, pool="own")))
    assert len(model.pools) == 1 + 2
    first = model.blocks[0]
    assert first.ffn.pool is first.residual.pool is model.blocks[1].ffn.pool is not first.values.pool


@pytest.mark.parametrize("case", [case for case, one in TABLES.items() if one.pool == "shared"])
def test_what_one_block_writes_into_a_shared_pool_the_other_reads(case):
    model, tokens = drawn(build(TABLES[case])), random_tokens(2, 4)
    asked = torch.ones(1, 1, D_MODEL), torch.tensor([[4]])  # a question of the oracle
    before = [model.blocks[index].ffn(*asked).hidden for index in (0, 1)]
    with torch.no_grad():
        model.blocks[0].ffn.pool.values.normal_()
    for index in (0, 1):
        assert not model.blocks[index].ffn(*asked).hidden.allclose(before[index], rtol=0.1)
    out = model(tokens)
    out.logits.sum().backward()
    read = torch.cat([reads.slots.flatten() for reads in out.reads.values()]).unique()
    assert model.pools[0].values.grad.coalesce().indices()[0].equal(read)


@pytest.mark.parametrize("case", CASES)
def test_a_state_round_trips_and_holds_each_table_once(case, tmp_path):
    first, second, tokens = drawn(build(CASES[case])), build(CASES[case], seed=1).eval(), random_tokens(2, 4)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt")
    second.load_state_dict(saved)
    assert first(tokens).logits.equal(second(tokens).logits)
    assert len(set(pools_read(second))) == len(set(pools_read(first)))
    storages = {one.untyped_storage().data_ptr() for name, one in saved.items() if name.endswith("values")}
    assert len(storages) == len(first.pools)


@pytest.mark.parametrize("case", CASES)
def test_two_models_share_nothing(case):
    first, second, tokens = build(CASES[case]), build(CASES[case]).eval(), random_tokens(2, 4)
    before = second(tokens).logits
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(float("nan"))
    assert second(tokens).logits.equal(before)


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_of_tables_are_sparse_or_dense_as_the_model_is_told(case, sparse):
    model = build(TABLES[case], sparse=sparse, residual=TABLES[case])
    model(random_tokens(2, 4)).logits.sum().backward()
    assert {pool.values.grad.is_sparse for pool in model.pools} == {sparse}
