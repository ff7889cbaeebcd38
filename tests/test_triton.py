"""The read in Triton, by its interpreter: the same numbers as the reference, and one line where they cannot be had."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from stubs import seeded
from torch import Tensor

from memlayers import kernels
from memlayers.config import ModelConfig, OptimConfig
from memlayers.layers import Memory, NGram
from memlayers.model import build_model
from memlayers.optim import RowwiseAdagrad, build_optimizers, fused_updates

pytest.importorskip("triton")

ROWS = 12
NEAR = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 3e-2, "atol": 6e-2}}


def read(choice: str, dtype: torch.dtype, shape: tuple[int, int], width: int) -> tuple[Tensor, ...]:
    """What is read, rows with a gradient, their gradients, and those of the weights; all arguments have gaps."""
    generator = seeded()
    values = torch.randn(width, ROWS, generator=generator).to(dtype).T.requires_grad_()
    slots = torch.randint(ROWS, shape[::-1], generator=generator).T
    weights = torch.rand(shape[::-1], generator=generator).T.requires_grad_()
    out = kernels.choose(choice).weighted_read(values, slots, weights)
    upstream = torch.randn(width, shape[0], generator=generator).T
    to_values, to_weights = torch.autograd.grad(out, (values, weights), upstream)
    assert to_values.is_sparse and to_values.is_coalesced() and to_values.dtype == dtype
    return out, to_values.indices(), to_values.values(), to_weights


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 14)])  # 14 reads of 12 rows: some twice in a bag
@pytest.mark.parametrize("width", [1, 24, 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_read_is_the_references_forward_and_backward(dtype, width, shape):
    wanted, got = (read(choice, dtype, shape, width) for choice in ("reference", "triton"))
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, **NEAR[dtype])


def test_rows_wider_than_a_program_holds_are_read_in_parts():
    wanted, got = (read(choice, torch.float32, (2, 3), 1100) for choice in ("reference", "triton"))
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


def test_weights_in_bfloat16_are_summed_in_float32():
    values, slots = torch.randn(ROWS, 8).bfloat16(), torch.randint(ROWS, (3, 40))
    weights = torch.rand(3, 40).bfloat16()
    got = kernels.choose("triton").weighted_read(values, slots, weights)
    exact = (weights.double()[..., None] * values.double()[slots]).sum(dim=1)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-7, atol=1e-4)  # the interpreter cuts what GPUs round


def test_a_slot_read_twice_by_one_token_counts_twice():
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0]], requires_grad=True)
    got = kernels.choose("triton").weighted_read(values, torch.tensor([[1, 1]]), torch.tensor([[0.25, 0.5]]))
    assert got.tolist() == [[1.5, 15.0]]
    got.backward(torch.tensor([[4.0, 8.0]]))
    assert values.grad._indices().tolist() == [[1]] and values.grad._values().tolist() == [[3.0, 6.0]]


def test_a_dense_gradient_is_the_references_and_a_frozen_table_gets_none():
    slots, weights, chosen = torch.randint(ROWS, (3, 2)), torch.rand(3, 2, requires_grad=True), kernels.choose("triton")
    values = torch.randn(ROWS, 4, requires_grad=True)
    chosen.weighted_read(values, slots, weights, sparse=False).sum().backward()
    assert not values.grad.is_sparse
    weights.grad = None
    chosen.weighted_read(values.detach(), slots, weights).sum().backward()
    torch.testing.assert_close(weights.grad, values.detach()[slots].sum(dim=-1))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(Memory(num_keys=6, heads=1, topk=3, d_key=8), blocks=[1]),
        ModelConfig(Memory(num_keys=6, heads=1, topk=3, d_key=8, pool="shared", gate=True), blocks=[1]),
        ModelConfig(NGram(n=2, num_slots=36, hashes=2), blocks=[1]),
    ],
    ids=["memory", "gate", "ngram"],
)
def test_fifty_steps_of_a_model_end_with_the_references_losses(config):
    optim, losses = OptimConfig(values=RowwiseAdagrad(lr=0.03)), []
    for choice in ("reference", "triton"):
        chosen = kernels.choose(choice)
        model = build_model(config, 20, seeded(), chosen)
        optimizers = build_optimizers(model, optim, chosen)
        own = []
        with fused_updates(model, optimizers, optim):  # as training does
            for step in range(50):
                loss = (model((torch.arange(6).view(2, 3) + step) % 20).logits - 1).square().mean()
                loss.backward()
                own.append(loss.detach())
                assert all((pool.values.grad is None) == (choice == "triton") for pool in model.pools)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        losses.append(torch.stack(own))
        learned = {"look_up": "triton"} if isinstance(config.ffn, Memory) else {}
        assert kernels.implementations_used(chosen) == (
            {} if choice == "reference" else {"weighted_read": "triton"} | learned
        )
    assert losses[0][-1] < 0.9 * losses[0][0]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("values of torch.float64 on cpu", {"values": torch.zeros(ROWS, 4, dtype=torch.float64)}),
        ("slots of torch.int32 on cpu", {"slots": torch.zeros(3, 2, dtype=torch.int32)}),
        ("weights of torch.float16 on cpu", {"weights": torch.zeros(3, 2, dtype=torch.float16)}),
        ("tensors on cpu, cpu and meta", {"weights": torch.ones(3, 2, device="meta")}),
        (r"slots \(2, 3\) and weights \(3, 2\)", {"slots": torch.zeros(2, 3, dtype=torch.int64)}),
        (f"slots from 0 to {ROWS}", {"slots": torch.tensor([[0, 1], [2, 3], [4, ROWS]])}),
        ("slots from -1 to 3", {"slots": torch.tensor([[0, 1], [2, 3], [-1, 2]])}),
    ],
)
def test_what_it_cannot_take_stops_in_one_line(said, change):
    tensors = {
        "values": torch.zeros(ROWS, 4),
        "slots": torch.zeros(3, 2, dtype=torch.int64),
        "weights": torch.ones(3, 2),
    }
    with pytest.raises(ValueError, match=rf"^kernels=triton: {said}; accepted: [^\n]*, or kernels=auto$"):
        kernels.choose("triton").weighted_read(**tensors | change)


def test_it_is_recorded_and_pickled():
    assert kernels.selected_implementation("triton") == "triton" and kernels.selected_implementation("auto") != "triton"
    chosen = kernels.choose("triton")
    assert {field for field in vars(chosen) if getattr(chosen, field) is getattr(kernels.REFERENCE, field)} == {
        "huge_pages"
    }
    assert pickle.loads(pickle.dumps(chosen)) == chosen


def without_interpreter(code: str, **variables: str) -> list[str]:
    """The lines that a fresh Python prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    command = [sys.executable, "-c", code]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout.splitlines()


def test_without_triton_or_on_the_cpu_without_its_interpreter_it_stops_in_one_line():
    code = """
import sys, torch
from memlayers import kernels
def complaint(call):
    try:
        call()
    except ValueError as error:
        print(error)
sys.modules["triton"] = None
complaint(lambda: kernels.choose("triton"))
del sys.modules["triton"]
read = kernels.choose("triton").weighted_read
complaint(lambda: read(torch.zeros(2, 2), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1)))
"""
    missing, on_the_cpu = without_interpreter(code)
    assert missing.startswith("kernels=triton: no triton (") and missing.endswith("; accepted: native, reference, auto")
    assert on_the_cpu == (
        "kernels=triton: values of torch.float32 on cpu; accepted: torch.float32 or torch.bfloat16 "
        "on a GPU, or anywhere if TRITON_INTERPRET=1 is set, or kernels=auto"
    )


def test_all_compile_for_a_gpu_without_one(tmp_path):
    """The compiler refuses some of what the interpreter runs."""
    code = """
from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from memlayers.kernels import triton_backward, triton_look_up, triton_reads, triton_updates
kinds = dict.fromkeys(("index", "first", "rows", "row", "column"), "*i64") | {"source": "*bf16", "values": "*bf16"}
kinds |= dict.fromkeys(("ordered",), "*i32") | {"order": "*i64", "half": "*fp32"}
kinds |= dict.fromkeys(("out", "weights", "grad", "grad_weights", "partial", "total", "mean", "square"), "*fp32")
kinds |= dict.fromkeys(("rate", "eps", "beta1", "beta2", "correct"), "fp32")
sizes = {"COLUMNS": 32, "HAS_TOTAL": True, "CHUNK": 64, "ROWWISE": False, "KEYS": 128, "RANKS": 8, "k": 8}
for module in (triton_reads, triton_updates, triton_backward, triton_look_up):
    for name, kernel in vars(module).items():
        if not isinstance(kernel, JITFunction) or name not in %r:
            continue
        own = {one: sizes[one] for one in kernel.arg_names if one in sizes}
        kind = {one: "constexpr" if one in own else kinds.get(one, "i32") for one in kernel.arg_names}
        built = compile(ASTSource(kernel, kind, own), target=GPUTarget("cuda", 90, 32))
        print(name, "cubin" in built.asm)
"""
    names = ["_sum_rows", "_dot_rows", "_step", "_adam", "_by_chunk", "_over_borders", "_select"]
    said = without_interpreter(code % (names,), TRITON_CACHE_DIR=str(tmp_path))
    assert said == [f"{name} True" for name in names]
