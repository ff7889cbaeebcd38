"""What only memory layers promise: their reads, the scale of queries, values narrower than the model."""

from dataclasses import replace

import naive
import pytest
import torch
from contract import D_MODEL, SMALL, build, drawn, random_tokens, site

from memlayers.layers import Memory, NGram, Peer
from memlayers.layers.lookup import SCORES, ProductKeyLookup
from memlayers.layers.memory import GatedMemory
from memlayers.layers.pool import MemoryPool, weighted_read


def lookup(**changes) -> ProductKeyLookup:
    return drawn(replace(SMALL, **changes).build(site())).lookup


def test_reads_say_what_was_added_up():
    layer = drawn(SMALL.build(site()))
    out = layer(torch.randn(3, 5, D_MODEL))
    assert out.reads.slots.shape == (3, 5, SMALL.heads * SMALL.topk)
    slots, weights = (part.flatten(0, 1) for part in out.reads)
    torch.testing.assert_close(out.hidden.flatten(0, 1), weighted_read(layer.pool.values, slots, weights))
    by_head = weights.unflatten(-1, (SMALL.heads, SMALL.topk))
    torch.testing.assert_close(by_head.sum(dim=-1), torch.ones(15, SMALL.heads))
    assert by_head.equal(by_head.sort(dim=-1, descending=True).values) and (weights > 0).all()
    of_heads = slots.unflatten(-1, (SMALL.heads, SMALL.topk)).flatten(0, 1)
    assert all(len(set(row)) == SMALL.topk for row in of_heads.tolist())


def test_the_gate_decides_what_is_taken_of_the_same_reads():
    plain, gated = SMALL.build(site()), drawn(replace(SMALL, gate=True).build(site()))
    plain.load_state_dict(gated.state_dict(), strict=False)
    x = torch.randn(2, 3, D_MODEL)
    mine, theirs = gated(x), plain(x)
    assert mine.reads.slots.equal(theirs.reads.slots) and mine.reads.weights.equal(theirs.reads.weights)
    wanted = gated.out(torch.nn.functional.silu(gated.gate(x)) * theirs.hidden)
    torch.testing.assert_close(mine.hidden, wanted)


@pytest.mark.parametrize("width", [1, 6, 20])
def test_gated_values_may_be_narrower_or_wider_than_the_model(width):
    layer = drawn(GatedMemory(D_MODEL, lookup(), MemoryPool(SMALL.num_keys**2, width)))
    x, weight = torch.randn(2, 3, D_MODEL, requires_grad=True), torch.randn(2, 3, D_MODEL)
    mine, twin = layer(x).hidden, naive.memory(layer, x, random_tokens(2, 3))
    torch.testing.assert_close(mine, twin, rtol=1e-4, atol=1e-5)
    inputs = [x, *layer.parameters()]
    found, wanted = (torch.autograd.grad((made * weight).sum(), inputs) for made in (mine, twin))
    for got, one in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.to_dense(), one, rtol=1e-4, atol=1e-5)


def test_normed_queries_do_not_see_how_large_the_input_is():
    x = torch.randn(2, 6, D_MODEL)
    normed, plain = lookup(), lookup(norm="none")
    torch.testing.assert_close(normed(x), normed(50 * x), rtol=1e-4, atol=1e-5)
    assert plain(x).slots.equal(plain(50 * x).slots)  # the order of scores stays, but the softmax sharpens
    assert (plain(50 * x).weights.amax(dim=-1) > plain(x).weights.amax(dim=-1)).all()


def test_scores_become_weights_that_compete_or_do_not():
    x, by = torch.randn(2, 6, D_MODEL), {score: lookup(score=score) for score in SCORES}
    for layer in by.values():
        layer.load_state_dict(by["softmax"].state_dict(), strict=False)
    reads = {score: layer(x) for score, layer in by.items()}
    weights = {score: one.weights.unflatten(-1, (SMALL.heads, SMALL.topk)) for score, one in reads.items()}
    assert all(one.slots.equal(reads["softmax"].slots) for one in reads.values())
    odds = weights["sigmoid"] / (1 - weights["sigmoid"])  # exp(score)
    torch.testing.assert_close(weights["softmax"], odds / odds.sum(dim=-1, keepdim=True), rtol=1e-3, atol=1e-5)
    sink = by["sink"].sink_bias.exp()[:, None]
    torch.testing.assert_close(weights["sink"], odds / (odds.sum(dim=-1, keepdim=True) + sink), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(weights["relu"], odds.log().clamp(min=0), rtol=1e-3, atol=1e-5)
    assert (weights["relu"] == 0).any() and (weights["relu"] > 0).any()


def test_a_sink_that_rises_takes_all_weight_and_one_that_falls_none():
    layer, x = lookup(score="sink"), torch.randn(2, 6, D_MODEL)
    sums = []
    for sink in (-30.0, 0.0, 30.0):
        layer.sink_bias.data.fill_(sink)
        sums.append(layer(x).weights.sum(dim=-1))
    torch.testing.assert_close(sums[0], torch.full((2, 6), float(SMALL.heads)))
    assert (sums[0] > sums[1]).all() and (sums[1] > sums[2]).all() and sums[2].max() < 1e-6


def test_a_sink_starts_as_a_score_of_zero():
    assert build(replace(SMALL, score="sink")).blocks[0].ffn.lookup.sink_bias.tolist() == [0.0] * SMALL.heads


@pytest.mark.parametrize("settings", [Memory, Peer])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"norm": "layer"}, "norm='layer' is not known; accepted: rms, batch, none"),
        ({"score": "max"}, "score='max' is not known; accepted: softmax, sink, sigmoid, relu"),
    ],
)
def test_norms_and_scores_that_are_not_known_are_refused(settings, wrong, says):
    with pytest.raises(ValueError, match=f"^model.ffn.{says}$"):
        settings(**wrong).validate("model.ffn", 16)


def test_an_address_that_is_not_learned_stays_as_drawn_while_values_and_gate_learn():
    layer = drawn(replace(SMALL, learned=False, gate=True).build(site()))
    layer(torch.randn(2, 3, D_MODEL)).hidden.sum().backward()
    learned = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert learned == {"pool.values", "gate.weight", "out.weight"}
    assert all(parameter.requires_grad == (name in learned) for name, parameter in layer.named_parameters())
    learns = replace(SMALL, gate=True).build(site())
    learns.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, D_MODEL)
    assert layer(x).hidden.equal(learns(x).hidden)


def test_pools_are_shared_by_layers_of_one_size_and_dtype_whatever_their_kind():
    where = site()
    asked = [
        Memory(num_keys=10, pool="shared"),
        Memory(num_keys=11, pool="shared"),
        Memory(num_keys=10, pool="shared", gate=True),
        Memory(num_keys=10, pool="own"),
        Memory(num_keys=10, pool="shared", value_dtype="bfloat16"),
        NGram(num_slots=100, pool="shared"),
        NGram(num_slots=100, pool="own"),
    ]
    pools = [settings.build(where).pool for settings in asked]
    assert [pools.index(pool) for pool in pools] == [0, 1, 0, 3, 4, 0, 6]
    assert [id(pool) for pool in where.pools] == [id(pools[index]) for index in (0, 1, 3, 4, 6)]
    assert [len(pool.values) for pool in where.pools] == [100, 121, 100, 100, 100]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"topk": 9}, "topk=9 is out of range; accepted: 1 to num_keys=8"),
        ({"topk": 0}, "topk=0 is out of range; accepted: 1 to num_keys=8"),
        ({"d_key": 5}, "d_key=5 has no two halves; accepted: an even number from 2"),
        ({"d_key": 0}, "d_key=0 has no two halves; accepted: an even number from 2"),
    ],
)
def test_a_lookup_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        ProductKeyLookup(16, **{"num_keys": 8, "heads": 2, "topk": 4, "d_key": 6} | wrong)
