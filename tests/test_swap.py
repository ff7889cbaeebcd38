"""Feed-forwards of any model replaced by layers of ours: what is found, what stands there then, and what is refused."""

import copy

import pytest
import torch
from contract import CASES, D_MODEL, SMALL, site
from foreign_models import Bilinear, foreign
from stubs import seeded

import memlayers
from memlayers.config import ModelConfig
from memlayers.foreign.swapped import Swapped
from memlayers.layers import PLE, Dense, Engram, Memory, NGram, Oracle, Peer, ShortConv, UltraMemV2
from memlayers.model import build_model

ALONE = {name: case for name, case in CASES.items() if type(case) in (Dense, Memory, Peer, UltraMemV2)}


@pytest.mark.parametrize("case", ALONE)
def test_every_feed_forward_that_needs_no_tokens_may_stand_there(case):
    """It is the layer, reached through a plain tensor of any leading shape, with all else as it was."""
    model, before = foreign(), foreign().state_dict()
    assert memlayers.swap(model, "blocks.*.mlp", ALONE[case], seed=1) == [f"blocks.{i}.mlp" for i in range(3)]
    kept = {name: value for name, value in model.state_dict().items() if ".mlp." not in name}
    assert kept and all(value.equal(before[name]) for name, value in kept.items())
    layer = model.blocks[1]["mlp"].layer
    assert type(layer) is type(ALONE[case].build(site()))
    for shape in ((D_MODEL,), (4, D_MODEL), (2, 3, D_MODEL), (2, 1, 3, D_MODEL), (0, 3, D_MODEL)):
        x = torch.randn(shape, generator=seeded())
        out = model.blocks[1]["mlp"](x)
        assert out.shape == x.shape and out.dtype == x.dtype
        torch.testing.assert_close(out.flatten(), layer(x.reshape(1, -1, D_MODEL), None).hidden.flatten())
    model(torch.randn(2, 3, D_MODEL)).sum().backward()
    learning = [p for p in model.blocks[0]["mlp"].parameters() if p.requires_grad]
    assert learning and all(p.grad is not None for p in learning)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("ffn", [SMALL, Memory(5, 2, 3, gate=True), Peer(5, 2, 3), UltraMemV2(5, 3, d_row=8)])
def test_dtype_and_device_are_those_of_what_was_there(dtype, ffn):
    model = foreign().to(dtype).eval()
    memlayers.swap(model, "blocks.*.mlp", ffn)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any(module.training for module in model.modules())
    x = torch.randn(2, 3, D_MODEL, dtype=dtype)
    out = model(x)
    assert out.dtype == dtype and out.isfinite().all()
    out.sum().backward()
    exact = foreign().double().eval()
    memlayers.swap(exact, "blocks.*.mlp", ffn)
    exact.load_state_dict(model.state_dict())
    if dtype.itemsize >= 4:  # in fewer bits other slots may be the best ones
        assert (out - exact(x.double())).abs().max() < (1e-5 if dtype == torch.float32 else 1e-12)
    empty = foreign().to("meta")
    memlayers.swap(empty, "blocks.*.mlp", ffn)
    assert {p.device.type for p in empty.parameters()} == {"meta"}


class Fused(torch.nn.Module):
    """A feed-forward whose gate and up-projection are one matrix."""

    def __init__(self, hidden: int):
        super().__init__()
        self.gate_up = torch.nn.Linear(D_MODEL, 2 * hidden, bias=False)
        self.down = torch.nn.Linear(hidden, D_MODEL, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(torch.nn.functional.silu(gate) * up)


@pytest.mark.parametrize("hidden", [3, 44])
def test_a_dense_layer_has_as_many_parameters_as_what_was_there(hidden):
    model = torch.nn.Sequential(Fused(hidden))
    before = sum(p.numel() for p in model.parameters())
    memlayers.swap(model, "0", Dense())
    assert sum(p.numel() for p in model.parameters()) == before


def test_a_table_may_be_narrower_than_its_model():
    model = foreign()
    memlayers.swap(model, "blocks.*.mlp", Memory(5, 2, 3, value_dtype="bfloat16"))
    assert {n.rpartition(".")[2] for n, p in model.named_parameters() if p.dtype == torch.bfloat16} == {"values"}
    assert model(torch.randn(2, 3, D_MODEL)).dtype == torch.float32


def test_tables_are_shared_by_the_layers_of_one_call_or_not_at_all():
    for pool, tables in (("own", 3), ("shared", 1)):
        model = foreign()
        memlayers.swap(model, "blocks.*.mlp", SMALL, pool=pool)
        assert len({id(one["mlp"].layer.pool.values) for one in model.blocks}) == tables
    first = model.blocks[0]["mlp"].layer.pool
    memlayers.swap(model, "blocks.2.mlp", SMALL, pool="shared")
    assert model.blocks[2]["mlp"].layer.pool is not first


def test_parameters_start_as_those_of_our_own_models():
    """The same spreads as build_model draws for the same layers, outputs by the number of blocks; a seed decides."""
    gated = Memory(num_keys=40, heads=2, d_key=32, gate=True)
    ours = build_model(ModelConfig(gated, "all", d_model=64, depth=3), 10, seeded())
    model, again, other = (foreign(d_model=64) for _ in range(3))
    for one, seed in ((model, 0), (again, 0), (other, 1)):
        memlayers.swap(one, "blocks.*.mlp", gated, seed=seed)
    for (name, mine), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert mine.equal(theirs), name
    assert not model.blocks[0]["mlp"].layer.gate.weight.equal(other.blocks[0]["mlp"].layer.gate.weight)
    for (name, mine), drawn in zip(
        model.blocks[0]["mlp"].layer.named_parameters(), ours.blocks[0].ffn.parameters(), strict=True
    ):
        if mine.ndim == 1:
            assert mine.equal(drawn)
        else:
            assert mine.std().item() == pytest.approx(drawn.std().item(), rel=8 / mine.numel() ** 0.5), name


def test_the_rest_may_be_frozen_and_swaps_add_up():
    model = foreign()
    memlayers.swap(model, "blocks.0.mlp", SMALL, freeze=True)
    memlayers.swap(model, "blocks.1.mlp", Peer(5, 2, 3), freeze=True)
    trainable = {name.partition(".layer.")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"blocks.0.mlp", "blocks.1.mlp"}


def test_a_module_with_two_names_is_replaced_at_both():
    model = foreign()
    model.blocks[2]["mlp"] = model.blocks[0]["mlp"]
    assert len(memlayers.swap(model, "blocks.*.mlp", SMALL)) == 3
    assert model.blocks[2]["mlp"] is model.blocks[0]["mlp"] is not model.blocks[1]["mlp"]


def test_an_auxiliary_loss_is_not_dropped_in_silence():
    model = foreign()
    memlayers.swap(model, "blocks.0.mlp", Bilinear(balance=0.1))
    with pytest.raises(ValueError, match=r"BilinearLayer has an auxiliary loss; accepted: layers without one$"):
        model(torch.randn(1, 2, D_MODEL))


REFUSED = {
    "nothing matches": (("block.*.mlp", SMALL), r"'block.\*.mlp' matches no module of Foreign; closest: blocks.0.mlp,"),
    "one in another": (("blocks.0*", SMALL), "matches blocks.0 and blocks.0.norm within it; accepted: one of both"),
    "no width to itself": (("head", SMALL), r"head \(Linear\): width cannot be told; accepted: a feed-forward"),
    "no matrix": (("blocks.*.norm", SMALL), r"blocks.0.norm \(LayerNorm\): width cannot be told"),
    "another signature": (("attention", SMALL), r"attention \(MultiheadAttention\): width cannot be told"),
    "two widths": (
        ("*mlp", SMALL),
        "blocks.0.mlp is 8 wide and other_mlp 10; accepted: modules of one width",
    ),
    "no key of that width": (("*.mlp", Memory(5, 2, 3, d_key=3)), "^ffn.d_key=3 is not even"),
    "too many": (("*.mlp", Memory(num_keys=4, topk=5)), "^ffn.topk=5 is out of range; accepted: 1 to 4"),
    "tokens": (
        ("*.mlp", NGram()),
        "^ffn=NGram: no feed-forward, or one of tokens.*accepted: Dense, Memory, .*or a layer",
    ),
    "other positions": (("*.mlp", ShortConv()), "^ffn=ShortConv: no feed-forward"),
    "no settings": (("*.mlp", "memory"), "^ffn='memory' is no settings of a layer; accepted: such as Memory"),
    "a class": (("*.mlp", Memory), "^ffn=<class 'memlayers.layers.memory.Memory'> is no settings"),
    "no pool to share": (("*.mlp", Dense(), "shared"), "^pool='shared': Dense has no pool; accepted: none for it"),
    "no such sharing": (("*.mlp", SMALL, "all"), "^ffn.pool='all' is not known; accepted: own, shared"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_one_line_and_changes_nothing(case):
    (pattern, ffn, *pool), said = REFUSED[case]
    model = foreign()
    modules, state = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=said) as caught:
        memlayers.swap(model, pattern, ffn, pool=pool[0] if pool else None, freeze=True)
    assert "\n" not in str(caught.value)
    assert dict(model.named_modules()) == modules and torch.get_rng_state().equal(random)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters()) and model.training


@pytest.mark.parametrize("ffn", [NGram(), Engram(), PLE(), Oracle(), ShortConv()])
def test_all_other_layers_of_ours_are_refused(ffn):
    with pytest.raises(ValueError, match=f"^ffn={type(ffn).__name__}: "):
        memlayers.swap(foreign(), "*.mlp", ffn)


@pytest.mark.slow
def test_the_rest_compiles_around_it_with_equal_outputs_and_gradients():
    model = foreign()
    memlayers.swap(model, "blocks.*.mlp", SMALL, pool="shared")
    compiled = torch.compile(copy.deepcopy(model))
    x = torch.randn(2, 3, D_MODEL)
    for one in (model, compiled):
        one(x).square().sum().backward()
    torch.testing.assert_close(compiled(x), model(x))
    for (name, mine), theirs in zip(model.named_parameters(), compiled.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad.to_dense(), theirs.grad.to_dense(), msg=name)


def test_random_numbers_go_on_as_without_a_swap():
    drawn = []
    for with_swap in (False, True):
        model = foreign()
        torch.manual_seed(5)
        if with_swap:
            memlayers.swap(model, "blocks.*.mlp", Memory(5, 2, 3, gate=True))
        drawn.append(torch.rand(3))
    assert drawn[0].equal(drawn[1])


def test_statistics_of_a_module_that_is_looked_at_stay_as_they_are():
    class Normed(torch.nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.up, self.norm, self.down = (
                torch.nn.Linear(width, 8),
                torch.nn.BatchNorm1d(8),
                torch.nn.Linear(8, width),
            )

        def forward(self, x):
            return self.down(self.norm(self.up(x).flatten(0, 1)).unflatten(0, x.shape[:2]))

    model = torch.nn.ModuleDict({"x": Normed(6), "y": Normed(4)}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"accepted: modules of one width a call"):
        memlayers.swap(model, "[xy]", SMALL)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items()) and model["x"].training


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_whose_weights_are_computed_is_found_too():
    """As by weight_norm, whose modules cannot be copied."""
    model = foreign()
    for block in model.blocks:
        for part in block["mlp"].modules():
            if isinstance(part, torch.nn.Linear):
                torch.nn.utils.weight_norm(part)
    assert len(memlayers.swap(model, "blocks.*.mlp", SMALL)) == 3


def test_it_is_a_plain_module():
    model = foreign()
    memlayers.swap(model, "blocks.*.mlp", SMALL)
    assert (
        isinstance(model.blocks[0]["mlp"], Swapped) and copy.deepcopy(model)(torch.zeros(1, 1, D_MODEL)).shape[2] == 5
    )
