"""What only a mixture of experts promises: its balance, by loss and by biases, and optimizers that see each expert."""

import pytest
import torch
from contract import D_MODEL, HIDDEN, NUM_TOKENS, drawn, site
from stubs import seeded

from memlayers.config import ModelConfig, OptimConfig
from memlayers.layers import MoE
from memlayers.layers.moe import MixtureOfExperts
from memlayers.model import build_model
from memlayers.optim import build_optimizers
from memlayers.optim.muon import Muon

PADDING = torch.tensor([[3, 5, 0, 0], [1, 2, 4, 0]])


def build(**changes) -> MixtureOfExperts:
    return drawn(MoE(**{"experts": 4, "topk": 2, "hidden": 3} | changes).build(site())).train()


def routes(layer: MixtureOfExperts, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (b, s, e), and which experts are chosen (b, s, e)."""
    share = (x @ layer.router.weight.detach().T).softmax(dim=-1)
    ranked = share if layer.bias is None else share + layer.bias
    return share, ranked >= ranked.topk(layer.topk, dim=-1).values[..., -1:]


def loads(layer: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    return routes(layer, x)[1].sum(dim=(0, 1)).float()


@pytest.mark.parametrize("topk", [1, 3])
def test_the_loss_is_that_of_switch_over_tokens_that_are_no_padding(topk):
    layer, x = build(topk=topk, balance_loss=0.5), torch.randn(2, 4, D_MODEL)
    share, chosen = routes(layer, x)
    real = [(b, s) for b in range(2) for s in range(4) if PADDING[b, s] != 0]
    total = 0.0
    for expert in range(4):
        sent = sum(float(chosen[b, s, expert]) for b, s in real) / (topk * len(real))
        total += sent * sum(float(share[b, s, expert]) for b, s in real) / len(real)
    assert layer(x, PADDING).aux_loss.item() == pytest.approx(0.5 * 4 * total, rel=1e-5)
    of_padding = layer(x.masked_fill((PADDING == 0)[..., None], 7.0), PADDING).aux_loss
    torch.testing.assert_close(of_padding, layer(x, PADDING).aux_loss)


def test_the_loss_is_its_coefficient_for_even_probabilities_and_its_gradient_levels_a_load():
    layer, x = build(balance_loss=0.1), torch.randn(8, 16, D_MODEL) + 0.5
    tokens, router = torch.ones(8, 16, dtype=torch.long), layer.router.weight
    with torch.no_grad():
        router[0] += 0.5
    lopsided = loads(layer, x)
    for _ in range(100):
        loss = layer(x, tokens).aux_loss
        with torch.no_grad():
            router -= torch.autograd.grad(loss, router)[0]
    later = loads(layer, x)
    assert later.max() / later.mean() < 1.3 < 1.5 < lopsided.max() / lopsided.mean()
    with torch.no_grad():
        router.zero_()
    assert layer(x, tokens).aux_loss.item() == pytest.approx(0.1)
    assert build(balance_loss=0.0)(x, tokens).aux_loss is None


def test_biases_move_against_the_load_in_training_alone_and_level_it():
    layer, x = build(experts=6, balance_loss=0.0, balance_step=0.01), torch.randn(8, 16, D_MODEL) + 0.5
    tokens = torch.ones(8, 16, dtype=torch.long)
    with torch.no_grad():
        layer.bias.zero_()
        layer.router.weight[0] += 0.5
    load = loads(layer, x)
    layer.eval()(x, tokens)
    assert not layer.bias.any()
    layer.train()(x, tokens)
    assert layer.bias.tolist() == pytest.approx((-0.01 * (load - load.mean()).sign()).tolist())
    for _ in range(100):
        layer(x, tokens)
    later = loads(layer, x)
    assert later.max() / later.mean() < 1.4 < load.max() / load.mean()


def test_biases_choose_and_do_not_weigh():
    layer, x = build(experts=4, topk=4, balance_step=0.1).eval(), torch.randn(2, 3, D_MODEL)
    tokens = torch.ones(2, 3, dtype=torch.long)
    before = layer(x, tokens).hidden
    layer.bias.copy_(torch.tensor([5.0, -5.0, 1.0, 0.0]))
    torch.testing.assert_close(layer(x, tokens).hidden, before)


def test_padding_moves_no_bias():
    layer = build(balance_step=0.1)
    layer.bias.zero_()
    layer(torch.randn(2, 3, D_MODEL), torch.zeros(2, 3, dtype=torch.long))
    assert not layer.bias.any()


def test_the_loss_has_the_gradient_of_the_router_and_of_nothing_else():
    layer = build()
    loss = layer(torch.randn(2, 4, D_MODEL), PADDING).aux_loss
    found = torch.autograd.grad(loss, list(layer.parameters()), allow_unused=True)
    named = dict(zip(dict(layer.named_parameters()), found, strict=True))
    assert {name for name, grad in named.items() if grad is not None} == {"router.weight"}


def test_muon_orthogonalizes_each_expert_and_leaves_those_that_nobody_chose():
    config = ModelConfig(MoE(experts=5, topk=1, hidden=3), "all", d_model=D_MODEL, hidden=HIDDEN)
    model = build_model(config, NUM_TOKENS, seeded())
    layer = model.blocks[0].ffn
    optimizers = build_optimizers(model, OptimConfig(muon_lr=0.05))
    assert [type(one) for one in optimizers] == [torch.optim.AdamW, Muon]
    layer.router.weight.data[3] = 0.0
    before = layer.up.detach().clone(), layer.down.detach().clone()
    model(torch.tensor([[1, 2, 3]])).logits.square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    for old, stack in zip(before, (layer.up, layer.down), strict=True):
        asked = stack.grad.flatten(1).any(dim=1)
        assert 0 < asked.sum() < 5  # three tokens choose one expert each
        for expert in range(5):
            rows, columns = stack.shape[1:]
            moved = (old[expert] - stack.detach()[expert]) / 0.05 / max(1.0, rows / columns) ** 0.5
            if not asked[expert]:
                assert not moved.any()
                continue
            left, values, right = torch.linalg.svd(stack.grad[expert], full_matrices=False)
            along = (left.T @ moved @ right.T).diagonal()[values > 0.01 * values[0]]
            assert along.max() < 1.3 and along.min() > 0.3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"topk": 9}, "topk=9 is out of range; accepted: 1 to 8"),
        ({"experts": 0}, "experts=0 is out of range; accepted: 1 to 65536"),
        ({"hidden": 0}, "hidden=0 is too small; accepted: 1 or more"),
        ({"shared": -1}, "shared=-1 is too small; accepted: 0 or more"),
        ({"balance_loss": -0.1}, "balance_loss=-0.1 is too small; accepted: 0 or more"),
        ({"balance_step": -1}, "balance_step=-1 is too small; accepted: 0 or more"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=rf"^model.ffn.{says}$"):
        MoE(**wrong).validate("model.ffn", 16)
