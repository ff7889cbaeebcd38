"""Rounding to few values, the bytes that it saves, and training through it."""

from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from stubs import seeded, small_world, tiny
from torch import Tensor

import memlayers
from memlayers.config import ModelConfig, OptimConfig, QuantizeConfig, TrainingConfig
from memlayers.config.quantize import WIDTHS
from memlayers.layers import Dense, Memory
from memlayers.model import Transformer, build_model, parameters_with_roles
from memlayers.optim import RowwiseAdagrad
from memlayers.quantize import VALUES, quantize, rounded, rounded_rows, stored_bytes
from memlayers.text import Text
from memlayers.training.learner import FactLearner, answer_loss
from memlayers.training.rounding import trained_already
from memlayers.training.run import run

MODEL = ModelConfig(ffn=Memory(num_keys=5, heads=2, topk=3, d_key=4), d_model=8, hidden=12)


def small(ffn: object = MODEL.ffn) -> Transformer:
    return build_model(ModelConfig(ffn=ffn, d_model=8, hidden=12), 20, seeded())


def copies(model: Transformer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


# --------------------------------------------------------------------------- rounding


def grid_of(row: numpy.ndarray, values: int) -> numpy.ndarray:
    """All values of a row's grid, in double precision."""
    scale = torch.tensor(abs(row).max()).bfloat16().double().item()
    return numpy.linspace(-scale, scale, values)


@pytest.mark.parametrize("width", VALUES)
@given(seed=st.integers(0, 2**32 - 1), std=st.sampled_from([1e-20, 1e-3, 1.0, 1e6]))
@example(seed=221, std=1.0)  # as int8, a number lies halfway between two values, of which either will do
def test_every_number_goes_to_the_nearest_value_of_its_row(width, seed, std):
    x = torch.randn(4, 9, generator=seeded(seed)) * std
    found = rounded_rows(x, width)
    scale = x.abs().amax(dim=1).max().item()
    for row, own in zip(found.numpy(), x.numpy(), strict=True):
        grid, exact = grid_of(own, VALUES[width]), own.astype(numpy.float64)
        assert abs(row[:, None] - grid).min(axis=1).max() <= 1e-6 * scale
        least = abs(exact[:, None] - grid).min(axis=1)
        assert (abs(row - exact) - least).max() <= 1e-6 * scale
        assert len(set(row.tolist())) <= VALUES[width]
    assert torch.equal(rounded_rows(found, width), found)


@pytest.mark.parametrize("width", VALUES)
def test_it_is_the_fake_quantization_of_torch(width):
    """Whose zero may lie halfway between two codes, as it does where there are an even number of values."""
    x = torch.randn(50, 16, generator=seeded())
    values = VALUES[width]
    step = 2 * x.abs().amax(dim=1).bfloat16().float() / (values - 1)
    zero = torch.full((50,), -0.5 if values % 2 == 0 else 0.0)
    low = -(values // 2)
    theirs = torch.fake_quantize_per_channel_affine(x, step, zero, 0, low, low + values - 1)
    assert torch.allclose(rounded_rows(x, width), theirs, rtol=1e-6, atol=1e-7)


def test_wider_numbers_are_bfloat16_or_stay_as_they_are():
    x = torch.randn(3, 4, 5, generator=seeded())
    assert rounded_rows(x, "float32") is x
    with pytest.raises(ValueError, match=r"in torch.bfloat16 is not rounded to int8; accepted: float32"):
        rounded_rows(x.bfloat16(), "int8")
    assert torch.equal(rounded_rows(x, "bfloat16"), x.bfloat16().float())


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_zeros_stay_zero_and_numbers_that_are_none_stay_none(width):
    x = torch.randn(3, 4, generator=seeded())
    x[0], x[1, 2] = 0, torch.nan
    found = rounded_rows(x, width)
    assert (found[0] == 0).all() and found[1, 2].isnan() and found[2].isfinite().all()


# --------------------------------------------------------------------------- of a model


def test_what_is_rounded_are_tables_or_matrices_keys_and_embeddings():
    for settings, roles in (
        (QuantizeConfig(tables="int4"), {"memory_value"}),
        (QuantizeConfig(weights="int4"), {"matrix", "output", "embedding", "memory_key"}),
    ):
        model = small()
        before, names = copies(model), {name: role for name, role, _ in parameters_with_roles(model)}
        quantize(model, settings, seeded())
        moved = {name for name, now in model.named_parameters() if not torch.equal(now, before[name])}
        assert moved == {name for name, role in names.items() if role in roles}
        for name in moved:
            assert torch.equal(model.get_parameter(name), rounded_rows(before[name], "int4"))


def test_noise_is_a_share_of_the_spread_of_a_table_and_comes_before_rounding():
    model = small(Memory(num_keys=100))
    before = copies(model)
    quantize(model, QuantizeConfig(noise=0.5), seeded(1))
    (table,) = model.tables()
    old = before["pools.0.values"]
    added = (table.values - old).detach()
    assert float(added.std() / old.std()) == pytest.approx(0.5, rel=0.01)
    assert abs(float(torch.corrcoef(torch.stack([added.flatten(), old.flatten()]))[0, 1])) < 0.01
    assert all(torch.equal(now, before[name]) for name, now in model.named_parameters() if name != "pools.0.values")
    other = small(Memory(num_keys=100))
    quantize(other, QuantizeConfig(tables="int8", noise=0.5), seeded(1))
    assert torch.equal(other.tables()[0].values, rounded_rows(table.values, "int8"))


def test_bytes_are_those_counted_by_hand():
    """20 tokens, d_model 8; 25 slots. Two blocks: a memory of 2 heads with keys of 4, and a SwiGLU of 12."""
    model = small()
    shapes = {  # rows, row length
        "table": (25, 8),
        "embedding": (20, 8),
        "query": (8, 8),
        "keys": (2 * 2 * 5, 2),
        "qkv, of two blocks": (2 * 24, 8),
        "out, of two blocks": (2 * 8, 8),
        "up": (24, 8),
        "down": (8, 12),
    }
    vectors = 5 * 8 + 2 * 2  # gains of norms, and those of queries and of keys
    table, *matrices = (rows * length for rows, length in shapes.values())
    rows = sum(rows for rows, _ in shapes.values()) - 25
    plain = stored_bytes(model, QuantizeConfig())
    assert plain == {"tables": 4 * table, "weights": 4 * (sum(matrices) + vectors)}
    assert stored_bytes(model, QuantizeConfig("int4", "ternary")) == {
        "tables": table / 2 + 25 * 2,
        "weights": pytest.approx(sum(matrices) / 5 + rows * 2 + 4 * vectors),
    }
    assert stored_bytes(model, QuantizeConfig("bfloat16"))["tables"] == 2 * table
    halved = small(Memory(num_keys=5, topk=3, value_dtype="bfloat16"))
    assert stored_bytes(halved, QuantizeConfig())["tables"] == 2 * table


# --------------------------------------------------------------------------- training


def test_gradients_are_straight_through():
    """Those of w + (rounded(w) - w).detach(), with nothing else moved and everything put back."""
    settings = QuantizeConfig(tables="int4", weights="int2", when="trained")
    text = Text(small_world("biographies"), "terse")
    documents = text.sample(8, seeded())

    def model() -> Transformer:
        return build_model(MODEL, len(text.vocabulary), seeded(), sparse=False)

    one, other = model(), model()
    before = copies(one)
    with rounded(one, settings):
        loss = answer_loss(one, documents, "all")
        loss.backward()
    assert all(torch.equal(now, before[name]) for name, now in one.named_parameters())
    width = {name: "int4" if role == "memory_value" else "int2" for name, role, _ in parameters_with_roles(other)}
    named = dict(other.named_parameters())
    through = {
        name: own + (rounded_rows(own, width[name]) - own).detach() if own.ndim > 1 else own
        for name, own in named.items()
    }

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = other

        def forward(self) -> Tensor:
            return answer_loss(self.model, documents, "all")

    wanted = torch.func.functional_call(Called(), {f"model.{name}": own for name, own in through.items()}, ())
    wanted.backward()
    assert torch.allclose(loss, wanted)
    for name, own in one.named_parameters():
        assert own.grad is not None and torch.allclose(own.grad, named[name].grad, rtol=1e-4, atol=1e-7), name


def test_parameters_are_put_back_after_an_error():
    model = small()
    before = copies(model)
    with pytest.raises(KeyboardInterrupt), rounded(model, QuantizeConfig("int2", "int2")):
        raise KeyboardInterrupt
    assert all(torch.equal(now, before[name]) for name, now in model.named_parameters())


@pytest.mark.parametrize("tables", ["float32", "int8"])
def test_rows_move_in_backward_only_where_they_are_not_rounded(tables, monkeypatch):
    learner = FactLearner(small(), OptimConfig(values=RowwiseAdagrad()), "all", 1, quantize=QuantizeConfig(tables))
    assert learner.quantize is None  # after training: nothing happens on the way
    settings = QuantizeConfig(tables, "int8", "trained")
    learner = FactLearner(small(), OptimConfig(values=RowwiseAdagrad()), "all", 1, quantize=settings)
    monkeypatch.setattr(learner, "optimizers", lambda use_pl_optimizer: learner.configure_optimizers()[0])
    learner.on_train_start()
    assert (learner.model.tables()[0].update is None) == (tables == "int8")


# --------------------------------------------------------------------------- runs


def of(folder: Path, steps: int = 20, ffn: object = MODEL.ffn, rate: float = 2.0, **changes):
    optim = OptimConfig(lr=1e-2, values=RowwiseAdagrad(lr=rate))
    training = TrainingConfig(steps=steps, batch_tokens=128, probes=2)
    model = ModelConfig(ffn=ffn, d_model=16, hidden=24)
    return tiny(folder, model=model, optim=optim, training=training, **changes)


@pytest.mark.parametrize("when", ["after", "trained"])
def test_the_model_that_is_kept_is_the_rounded_one_that_was_measured(when, tmp_path):
    config = of(tmp_path, quantize=QuantizeConfig("int4", "int8", when), save_model=True)
    record = run(config)
    again = finished_model(config)
    for _, role, own in parameters_with_roles(again):
        width = {"memory_value": "int4", "vector": "float32"}.get(role, "int8")
        assert torch.equal(rounded_rows(own, width), own)
    asked = record["training"]["curve"][-1]["recall"]
    assert when == "after" or asked == record["recall"]["exact"]  # the probe after the last step asks the rounded one
    assert record["storage"] == stored_bytes(again, config.quantize) | {
        "bits_per_fact": pytest.approx(
            8 * sum(stored_bytes(again, config.quantize).values()) / (record["recall"]["exact"] * 40)
        )
    }


@pytest.mark.parametrize(
    "settings", [("int4", "int8"), ("ternary", "float32"), ("int8", "float32", "after", 0.5)], ids=str
)
def test_a_model_that_was_kept_is_rounded_without_training_to_the_same_digits(settings, tmp_path, monkeypatch):
    rounding = QuantizeConfig(*settings)
    trained = run(of(tmp_path / "alone", quantize=rounding))
    plain = run(of(tmp_path / "both", save_model=True))
    monkeypatch.setattr("memlayers.training.run.fit", lambda *_: pytest.fail("it trains"))
    taken = run(of(tmp_path / "both", quantize=rounding))
    assert taken["training"].pop("taken_from") == plain["digest"]
    untimed = [
        {key: value for key, value in one.items() if key not in ("timing", "checksum")} for one in (taken, trained)
    ]
    assert untimed[0] == untimed[1] and taken["timing"] == plain["timing"]
    assert taken["recall"] != plain["recall"]


def test_a_model_of_other_code_machine_or_settings_or_that_was_not_kept_is_not_taken(tmp_path, monkeypatch):
    rounding = QuantizeConfig("ternary", "ternary")
    run(of(tmp_path / "lost"))
    run(of(tmp_path / "kept", save_model=True))
    assert trained_already(of(tmp_path / "kept", quantize=rounding)) is not None
    assert trained_already(of(tmp_path / "lost", quantize=rounding)) is None
    assert trained_already(of(tmp_path / "kept", quantize=QuantizeConfig())) is None
    assert trained_already(of(tmp_path / "kept", quantize=QuantizeConfig("ternary", "ternary", "trained"))) is None
    assert trained_already(of(tmp_path / "kept", rate=0.1, quantize=rounding)) is None
    for name, other in (
        ("code_version", lambda: {"commit": "other"}),
        ("machine", lambda threads: {"processor": "other"}),
        ("selected_implementation", lambda choice: "other"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"memlayers.training.rounding.{name}", other)
            assert trained_already(of(tmp_path / "kept", quantize=rounding)) is None
    assert trained_already(of(tmp_path / "kept", quantize=rounding)) is not None


def test_a_damaged_model_is_named_in_one_line(tmp_path):
    run(of(tmp_path, save_model=True))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"^{file}: not a model \(.*\); accepted: "):
        run(of(tmp_path, quantize=QuantizeConfig("int4")))


def finished_model(config) -> Transformer:
    from memlayers.training.record import model_path

    return memlayers.load(model_path(config)).model


def test_nothing_recalled_has_no_bits(tmp_path):
    record = run(of(tmp_path, steps=1, ffn=Dense(), quantize=QuantizeConfig(weights="ternary")))
    exact = record["recall"]["exact"]
    assert (record["storage"]["bits_per_fact"] is None) == (exact == 0) and record["storage"]["tables"] == 0


def test_noise_is_not_the_draw_of_the_table_itself(tmp_path):
    """Of rows that hardly moved."""
    kept = {}
    for noise in (0.0, 1.0):
        config = of(tmp_path, 1, rate=1e-6, quantize=QuantizeConfig(noise=noise), save_model=True)
        run(config)
        kept[noise] = finished_model(config).tables()[0].values.detach().flatten()
    assert abs(float(torch.corrcoef(torch.stack([kept[0.0], kept[1.0] - kept[0.0]]))[0, 1])) < 0.2


@pytest.mark.slow
def test_eight_bits_recall_what_float32_does_and_ternary_less_unless_trained(tmp_path):
    def recall(*settings: str) -> float:
        ffn = Memory(num_keys=16, heads=2, topk=4)
        return run(of(tmp_path, 300, ffn, quantize=QuantizeConfig(*settings)))["recall"]["exact"]

    plain = recall()
    assert plain > 0.9
    assert recall("int8", "int8") == pytest.approx(plain, abs=0.03)
    after, trained = recall("float32", "ternary"), recall("float32", "ternary", "trained")
    assert after < plain - 0.2 and trained > after + 0.2
