"""A layer that nobody foresaw: experts in one parameter, a router with a bias, a loss of its own, running averages."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from contract import D_MODEL, HIDDEN, NUM_TOKENS, SMALL, drawn, random_tokens
from stubs import seeded
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers.config import ModelConfig, OptimConfig, RoleConfig
from memlayers.cost import model_cost
from memlayers.documents import Documents
from memlayers.layers.feedforward import Cost, FFNOutput, Workload, matrix_cost
from memlayers.layers.site import Site
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.optim import build_optimizers
from memlayers.optim.muon import Muon
from memlayers.optim.rules import RowwiseAdagrad
from memlayers.training.learner import answer_loss


@dataclass
class Mixture:
    experts: int = 3
    weight: float = 0.1  # of the auxiliary loss

    def validate(self, key: str, d_model: int) -> None:
        pass

    def build(self, site: Site) -> "Experts":
        return Experts(site.d_model, site.hidden, self.experts, self.weight)


class Experts(nn.Module):
    param_roles: ClassVar[dict[str, str]] = {"down": "output"}

    def __init__(self, d_model: int, hidden: int, experts: int, weight: float):
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model)
        self.router = nn.Linear(d_model, experts)
        self.up = nn.Parameter(torch.empty(experts, hidden, d_model))
        self.down = nn.Parameter(torch.empty(experts, 2, d_model, hidden))  # two maps, added up
        self.temperature = nn.Parameter(torch.empty(()))
        self.weight = weight

    def forward(self, x: Tensor, tokens: Tensor) -> FFNOutput:
        share = (self.router(self.norm(x.mT).mT) * self.temperature).softmax(dim=-1)
        hidden = torch.einsum("bse,emdh,ehi,bsi->bsd", share, self.down, self.up, x)
        return FFNOutput(hidden, self.weight * share.mean(dim=(0, 1)).square().sum())

    def cost(self, work: Workload) -> Cost:
        return matrix_cost(*self.up.shape) + matrix_cost(*self.down.shape) + matrix_cost(*self.router.weight.shape)


def build(seed: int = 0, **changes) -> Transformer:
    config = ModelConfig(**{"ffn": Mixture(), "blocks": "all", "d_model": D_MODEL, "hidden": HIDDEN} | changes)
    config.validate()
    return build_model(config, NUM_TOKENS, seeded(seed))


def documents() -> Documents:
    tokens = random_tokens(6, 5).clamp(min=1)
    return Documents(tokens, torch.arange(5).expand(6, 5) >= 3, torch.zeros_like(tokens, dtype=torch.bool))


@pytest.mark.parametrize("placement", ["replace", "add"])
@pytest.mark.parametrize("loss", ["answers", "all"])
def test_its_auxiliary_loss_is_added_to_that_of_the_documents_and_moves_its_router(placement, loss):
    model = drawn(build(placement=placement)).eval()
    tokens, answers, _ = batch = documents()
    out = model(tokens[:, :-1], answers[:, 1:] if loss == "answers" else None)
    target = tokens[:, 1:][answers[:, 1:]] if loss == "answers" else tokens[:, 1:].flatten()
    own, total = F.cross_entropy(out.logits, target), answer_loss(model, batch, loss)
    torch.testing.assert_close(total - own, out.aux_loss)
    assert out.aux_loss.shape == () and out.aux_loss > 2 * 0.1 / 3 and not out.reads  # at least 1/3 of each layer
    router = next(parameter for name, parameter in model.named_parameters() if name.endswith("router.weight"))
    by_all, by_documents = torch.autograd.grad(total, router)[0], torch.autograd.grad(own, router)[0]
    assert (by_all - by_documents).abs().max() > 1e-6 and by_all.isfinite().all()


@pytest.mark.parametrize(
    "places", [["ffn"], ["residual"], ["values", "before"], ["ffn", "residual", "values", "before"]]
)
def test_auxiliary_losses_of_all_places_are_added_up(places):
    model = build(**{"ffn": SMALL} | {place: Mixture() for place in places})
    made, hooks = [], []
    for module in model.modules():
        if isinstance(module, Experts):
            hooks.append(module.register_forward_hook(lambda *call: made.append(call[-1].aux_loss)))
    out = model(random_tokens(2, 4))
    assert len(made) == len(hooks) == 2 * (len(places) + ("before" in places))
    torch.testing.assert_close(out.aux_loss, torch.stack(made).sum())


def test_without_such_layers_there_is_no_auxiliary_loss():
    batch = documents()
    model = build(ffn=SMALL)
    out = model(batch.tokens[:, :-1], batch.answers[:, 1:])
    assert out.aux_loss is None
    wanted = F.cross_entropy(out.logits, batch.tokens[:, 1:][batch.answers[:, 1:]])
    assert answer_loss(model, batch, "answers").equal(wanted)


def test_a_batch_without_answers_still_has_the_auxiliary_loss():
    batch = Documents(random_tokens(2, 4), *torch.zeros(2, 2, 4, dtype=torch.bool))
    model = build().eval()
    torch.testing.assert_close(answer_loss(model, batch, "answers"), model(batch.tokens[:, :-1]).aux_loss)


def test_biases_start_at_zero_gains_and_scalars_at_one_and_buffers_as_they_were_made():
    model = build()
    roles = {name.removeprefix("blocks.0.ffn."): role for name, role, _ in parameters_with_roles(model)}
    wanted = {"router.bias": "bias", "norm.bias": "bias", "norm.weight": "vector", "temperature": "vector"}
    wanted |= {"router.weight": "matrix", "up": "matrix", "down": "output"}
    assert {name: roles[name] for name in wanted} == wanted
    layer = model.blocks[0].ffn
    assert not layer.router.bias.any() and not layer.norm.bias.any() and layer.temperature == 1
    assert not layer.norm.running_mean.any() and layer.norm.running_var.equal(torch.ones(D_MODEL))
    for parameter, width in ((layer.up, D_MODEL), (layer.down, 4 * HIDDEN)):
        assert abs(parameter.std() * width**0.5 - 1) < 4 / parameter.numel() ** 0.5


def test_buffers_move_in_training_alone_and_are_part_of_the_state():
    model, tokens = build(), random_tokens(4, 6)
    model.train()(tokens)
    mean = model.blocks[1].ffn.norm.running_mean.clone()
    assert mean.any()
    wanted = model.eval()(tokens).logits
    assert model.blocks[1].ffn.norm.running_mean.equal(mean)
    other = build(seed=1).eval()
    other.load_state_dict(model.state_dict())
    assert other(tokens).logits.equal(wanted)


def optim(**changes) -> OptimConfig:
    roles = OptimConfig().roles | {"bias": RoleConfig(3.0), "output": RoleConfig(0.5, 0.01)}
    return OptimConfig(lr=0.01, roles=roles, values=RowwiseAdagrad(), **changes)


@pytest.mark.parametrize("muon_lr", [None, 0.05])
@pytest.mark.parametrize("ffn", [Mixture(), SMALL])
def test_matrices_and_stacks_of_them_go_to_muon_where_it_is_asked_for(ffn, muon_lr):
    model = build(ffn=ffn, residual=Mixture())
    optimizers = build_optimizers(model, optim(muon_lr=muon_lr))
    mine = {id(p): type(one) for one in optimizers for group in one.param_groups for p in group["params"]}
    rates = {id(p): group["lr"] for one in optimizers for group in one.param_groups for p in group["params"]}
    assert len(mine) == len(list(model.parameters()))
    layer = model.blocks[0].residual
    own = Muon if muon_lr else torch.optim.AdamW
    assert [mine[id(p)] for p in (layer.up, layer.down, layer.router.weight)] == [own] * 3
    assert [rates[id(p)] for p in (layer.up, layer.down)] == [muon_lr or 0.01, (muon_lr or 0.01) / 2]
    assert mine[id(layer.router.bias)] is torch.optim.AdamW and rates[id(layer.router.bias)] == 0.03
    if muon_lr is None:
        assert not any(isinstance(one, Muon) for one in optimizers)


@pytest.mark.parametrize("muon_lr", [None, 0.05])
def test_every_parameter_moves(muon_lr):
    model = drawn(build(residual=Mixture(), tied_head=True))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = build_optimizers(model, optim(muon_lr=muon_lr))
    answer_loss(model, documents(), "all").backward()
    for optimizer in optimizers:
        optimizer.step()
    assert not [name for name, parameter in model.named_parameters() if parameter.equal(before[name])]


def test_its_cost_is_asked_without_allocating_it():
    config = ModelConfig(Mixture(), "all", d_model=D_MODEL, hidden=HIDDEN)
    work = Workload(4.0, 2.0)
    assert model_cost(config, NUM_TOKENS, work) == build().cost(work)
