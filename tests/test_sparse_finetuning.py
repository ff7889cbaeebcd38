"""Sparse memory finetuning: which slots are read, which are chosen, and that nothing else moves."""

import math
from collections import Counter

import pytest
import torch
from contract import D_MODEL, FIRST, SMALL, TABLES, build, random_tokens
from foreign_models import foreign
from torch import Tensor, nn

import memlayers
from memlayers import kernels
from memlayers.layers import Dense
from memlayers.layers.pool import MemoryPool
from memlayers.optim import RowwiseAdagrad
from memlayers.optim.sparse_finetuning import Background, choose_rows, count_reads, only_rows, tf_idf


def counted(model: nn.Module, tokens: Tensor, where: Tensor) -> dict[int, Counter[int]]:
    """By the table's id, read by read: what our own model returns."""
    found: dict[int, Counter[int]] = {}
    for place, reads in model.eval()(tokens).reads.items():
        block, _, name = place.partition(".")
        layer = getattr(model.blocks[int(block)], name)
        counter = found.setdefault(id(layer.pool), Counter())
        for row in range(tokens.shape[0]):
            for position in range(tokens.shape[1]):
                if where[row, position]:
                    counter.update(reads.slots[row, position].tolist())
    return found


@pytest.mark.parametrize("case", TABLES)
def test_counts_are_those_of_the_reads_one_by_one(case):
    model, tokens = build(TABLES[case]).train(), random_tokens(3, 6)
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    where = torch.rand(3, 6) < 0.6
    counts = count_reads(model, tokens, where)
    assert [module.training for module in model.modules()] == modes
    assert not any(one._forward_hooks for one in model.modules())
    found = counted(model, tokens, where)
    assert {id(pool) for pool in counts} == set(found)
    for pool, count in counts.items():
        assert count.tolist() == [found[id(pool)][slot] for slot in range(len(pool.values))]
    everywhere = count_reads(model, tokens)
    assert all((count <= everywhere[pool]).all() for pool, count in counts.items())


def test_counts_of_a_swapped_model_are_of_the_layers_within():
    model, x = foreign().eval(), torch.randn(2, 3, D_MODEL)
    memlayers.swap(model, "blocks.*.mlp", SMALL, pool="shared")
    (count,) = count_reads(model, x).values()
    assert count.sum() == 3 * 2 * 3 * SMALL.heads * SMALL.topk
    where = torch.tensor([[True, False, False], [False, True, True]])
    (part,) = count_reads(model, x, where).values()
    assert part.sum() * 2 == count.sum() and (part <= count).all()


def test_a_score_is_the_share_of_reads_times_how_rare_the_slot_is():
    count, containing = torch.tensor([4, 0, 5, 1]), torch.tensor([0, 3, 9, 2])
    scores = tf_idf(count, containing, 9).tolist()
    assert scores == pytest.approx([0.4 * math.log(10), 0.0, 0.0, 0.1 * math.log(10 / 3)])


def test_rows_are_the_best_of_each_table_and_none_that_all_batches_read():
    pool = MemoryPool(4, 2)
    counts, background = {pool: torch.tensor([4, 0, 5, 1])}, Background(9, {pool: torch.tensor([0, 3, 9, 2])})
    assert [choose_rows(counts, background, top)[pool].tolist() for top in (1, 2, 4, 9)] == [
        [0],
        [0, 3],
        [0, 3],
        [0, 3],
    ]


def test_a_background_counts_batches_and_not_reads():
    model = build(SMALL)
    batches = [(random_tokens(2, 4), None), (random_tokens(1, 4), torch.tensor([[True, False, True, True]]))]
    background = Background.of(model, batches)
    assert background.batches == 2
    for pool, containing in background.containing.items():
        one, two = (count_reads(model, *batch)[pool] for batch in batches)
        assert containing.tolist() == ((one > 0).long() + (two > 0).long()).tolist()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("case", [name for name in FIRST if name in TABLES])
def test_within_only_chosen_rows_move_and_afterwards_all_is_trainable_as_before(case, sparse):
    model, tokens = build(TABLES[case], sparse=sparse), random_tokens(3, 6)
    model.norm.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(tokens).logits.sum().backward()  # an optimizer of all parameters would apply these
    counts = count_reads(model, tokens)
    rows = choose_rows(counts, Background.of(model, [(random_tokens(1, 2), None)]), 2)
    assert any(len(chosen) for chosen in rows.values())
    with only_rows(model, rows) as tables:
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        assert {id(table) for table in tables} == {id(pool.values) for pool in rows}
        model(tokens).logits.square().sum().backward()
        optimizer.step()
    moved = {pool: (pool.values != before[name]).any(dim=1) for name, pool in named_pools(model)}
    for pool, chosen in rows.items():
        assert set(moved[pool].nonzero().flatten().tolist()) <= set(chosen.tolist())
    assert any(one.any() for one in moved.values())
    assert all(p.equal(before[name]) for name, p in model.named_parameters() if not name.endswith("values"))
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["norm.weight"]
    model.zero_grad()
    model(tokens).logits.square().sum().backward()
    full = [pool.values.grad.to_dense() for pool in rows]
    assert any((grad.any(dim=1).sum() > len(rows[pool])) for pool, grad in zip(rows, full, strict=True))


def named_pools(model: nn.Module) -> list[tuple[str, MemoryPool]]:
    return [(f"{name}.values", one) for name, one in model.named_modules() if isinstance(one, MemoryPool)]


@pytest.mark.parametrize("choice", ["reference", "auto"])
def test_gradients_of_chosen_rows_are_what_they_were_without_choosing(choice):
    """In C and in torch, and by a rule that keeps state."""
    model, tokens = build(SMALL), random_tokens(3, 6)
    model(tokens).logits.square().sum().backward()
    (pool,) = {layer.pool for layer in (model.blocks[0].ffn,)}
    whole = pool.values.grad.to_dense()
    rows = {pool: torch.tensor([1, 7, 11])}
    model.zero_grad()
    with only_rows(model, rows) as tables:
        rule = RowwiseAdagrad(lr=0.1).build(tables, kernels.choose(choice))
        model(tokens).logits.square().sum().backward()
        found, old = pool.values.grad.to_dense(), pool.values.detach().clone()
        rule.step()
    assert found[[1, 7, 11]].equal(whole[[1, 7, 11]])
    found[[1, 7, 11]] = 0
    assert not found.any()
    assert set((pool.values != old).any(dim=1).nonzero().flatten().tolist()) <= {1, 7, 11}


def test_a_mistake_is_one_line():
    with pytest.raises(ValueError, match=r"^a background of no batches; accepted: one or more"):
        Background.of(build(SMALL), [])
    with pytest.raises(
        ValueError, match=r"^Transformer has no layer that reads a pool; accepted: a model with memory la"
    ):
        count_reads(build(Dense()), random_tokens(1, 2))
    model = build(SMALL)
    pool = model.blocks[0].ffn.pool
    pool.update = RowwiseAdagrad().build([pool.values], kernels.REFERENCE).update_of(pool.values)
    with (
        pytest.raises(ValueError, match=r"^a table is updated in backward, before rows are chosen"),
        only_rows(model, {pool: torch.tensor([0])}),
    ):
        pass
    assert all(p.requires_grad for p in model.parameters())
