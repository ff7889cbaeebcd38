"""Batch normalisation of queries: torch's own without padding, deaf to padding, and the same after a load."""

import pytest
import torch
from contract import D_MODEL, SMALL, build, drawn, random_tokens, site
from safetensors.torch import load_model, save_model

from memlayers.layers.batch_norm import BatchNorm
from memlayers.recall.ask import evaluation

SETTINGS = {"norm": "batch"}


def model(seed: int = 0):
    return build(type(SMALL)(**vars(SMALL) | SETTINGS), seed)


def test_it_is_torchs_where_nothing_is_padding():
    mine, theirs = BatchNorm(6), torch.nn.BatchNorm1d(6)
    for _ in range(3):
        x = (3 * torch.randn(4, 50, 6) + 2).requires_grad_()
        tokens, weight = torch.ones(4, 50, dtype=torch.long), torch.randn(4, 50, 6)
        found, wanted = mine(x, tokens), theirs(x.mT).mT
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        ours, torchs = (torch.autograd.grad((made * weight).sum(), x)[0] for made in (found, wanted))
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.mean, theirs.running_mean)
        torch.testing.assert_close(mine.variance, theirs.running_var, rtol=1e-2, atol=1e-3)  # torch's divides by n - 1
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x.mT).mT, rtol=1e-2, atol=1e-2)


def test_in_bfloat16_it_counts_every_token():
    """Sums in bfloat16 stop at 256 ones; here are 8,192 tokens."""
    x = (torch.randn(16, 512, 4) + 3).bfloat16()
    layer = BatchNorm(4).bfloat16()
    made = layer(x)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), torch.nn.BatchNorm1d(4)(x.float().mT).mT, rtol=2e-2, atol=5e-2)


def test_padding_changes_nothing_of_other_tokens_nor_of_the_averages():
    x, tokens = torch.randn(3, 5, 6), torch.tensor([[4, 2, 0, 0, 0], [1, 1, 1, 1, 1], [7, 7, 7, 0, 0]])
    real = tokens != 0
    made = []
    for padding in (0.0, 1e3):
        layer = BatchNorm(6)
        out = layer(x.masked_fill(~real[..., None], padding), tokens)
        made.append((out[real], layer.mean, layer.variance))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(made[0][0], BatchNorm(6)(x[real][None])[0])


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (2, 3)])
def test_a_batch_without_tokens_leaves_finite_numbers(shape):
    layer = BatchNorm(6)
    assert layer(torch.randn(*shape, 6), torch.zeros(*shape, dtype=torch.long)).isfinite().all()
    assert layer.mean.isfinite().all() and layer.variance.isfinite().all()


def test_averages_move_in_training_alone_and_not_while_a_model_is_asked():
    one, tokens = model().train(), random_tokens(4, 6)
    norms = [module for module in one.modules() if isinstance(module, BatchNorm)]
    assert len(norms) == 2
    with evaluation(one):
        one(tokens)
        assert not any(norm.mean.any() for norm in norms)
    one(tokens)
    assert all(norm.mean.all() for norm in norms) and one.training


def test_a_saved_model_answers_as_it_did(tmp_path):
    """Averages are in the file: with those that a layer begins with it answers otherwise."""
    one, other, tokens = model(), model(seed=1), random_tokens(4, 6)
    for _ in range(5):
        one.train()(tokens)
    wanted = one.eval()(tokens).logits
    save_model(one, str(tmp_path / "model.safetensors"))
    load_model(other, str(tmp_path / "model.safetensors"))
    assert other.eval()(tokens).logits.equal(wanted)
    for module in other.modules():
        if isinstance(module, BatchNorm):
            module.mean.zero_()
            module.variance.fill_(1.0)
    assert not other(tokens).logits.allclose(wanted)


def test_queries_of_a_batch_have_unit_variance_and_reads_do_not_see_how_large_the_input_is():
    layer = drawn(type(SMALL)(**vars(SMALL) | SETTINGS).build(site())).lookup.train()
    x, tokens = torch.randn(8, 16, D_MODEL), random_tokens(8, 16)
    torch.testing.assert_close(layer(x, tokens), layer(50 * x + 3, tokens), rtol=1e-3, atol=1e-3)
