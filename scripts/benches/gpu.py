"""On a GPU: kernels against float64, then one layer's training step beside SwiGLU's and the peers', then whole models.

16,384 tokens, 4 heads, keys half as wide as the model, float32 with TF32 products; forward, backward, step. Sides take
turns on one device, and the clock waits for it. What does not fit into its memory is left out, and not guessed.
"""

import gc
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from benches import peers
from benches.clock import Side, ratio, take_turns
from benches.steps import BATCHES, TrainingStep, configured
from einops import rearrange
from torch import Tensor
from torch.optim import AdamW

from memlayers.kernels import REFERENCE, Kernels, choose
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.product_keys import half_scores, winners

TOKENS = 16_384
SHAPES = [(256, 14, 8), (256, 20, 8), (1024, 14, 8), (1024, 20, 8), (1024, 20, 32), (1024, 24, 8)]
MODELS = [(512, [4]), (1024, [4]), (1024, [1, 4, 6])]  # width, blocks with a memory, of 8
OURS, DENSE = "memlayers, triton", "SwiGLU + fused AdamW"


def swiglu(width: int, *_: int) -> peers.Trained:
    layer = DenseFeedForward(width, 8 * width // 3)
    return layer, [AdamW(layer.parameters(), 1e-3, fused=True)]


SIDES: dict[str, Callable[[int, int, int], peers.Trained]] = {
    DENSE: swiglu,
    OURS: partial(peers.ours, kernels="triton"),
    "memlayers, triton, lazy Adam": partial(peers.ours, kernels="triton", adam=True),
    "memlayers, reference": partial(peers.ours, kernels="reference"),
    "EmbeddingBag + fused AdamW": partial(peers.bag_dense, fused=True),
}
if find_spec("product_key_memory") and find_spec("PEER_pytorch"):
    SIDES |= {
        "product-key-memory + fused Adam": partial(peers.lucidrains_pkm, fused=True),
        "PEER-pytorch (two tables) + fused AdamW": peers.lucidrains_peer,
    }


def waiting(side: Side) -> Side:
    def run() -> None:
        side()
        torch.cuda.synchronize()

    return run


def exact(device: str, tokens: int, widths: tuple[int, ...], reads: int = 32, slots: int = 4096) -> dict[str, float]:
    """For each kernel, its largest error against float64, relative to the largest number."""
    worst: dict[str, float] = {}
    for width in widths:
        generator = torch.Generator(device).manual_seed(width)
        draw = partial(torch.randn, generator=generator, device=device)
        tensors = [
            draw(slots, width),
            draw(tokens, reads),
            draw(tokens, width),
            draw(tokens, 2, 2, 8),
            draw(2, 2, 64, 8),
        ]
        at = torch.randint(slots, (tokens, reads), generator=generator, device=device)
        wanted = outputs(REFERENCE, at, [one.double() for one in tensors])
        got = outputs(choose("triton"), at, tensors)
        for name, number in wanted.items():
            error = (got[name].double() - number).abs().max() / number.abs().max()
            worst[name] = max(worst.get(name, 0.0), float(error))
    return worst


def outputs(kernels: Kernels, at: Tensor, tensors: list[Tensor]) -> dict[str, Tensor]:
    """The outputs to compare: lookup, read, gradients, and the table after a step and after an update in backward."""
    values, weights, upstream, query, keys = tensors
    table, mix = values.clone().requires_grad_(), weights.clone().requires_grad_()
    out = kernels.weighted_read(table, at, mix)
    out.backward(upstream)
    grad = table.grad.coalesce()  # type: ignore[union-attr]
    stepped, sums = values.clone(), torch.zeros_like(values[:, :1])
    kernels.adagrad_rows(stepped, sums, grad.indices()[0], grad.values(), rate=0.1, eps=1e-8)
    chosen, mixed = kernels.look_up(query, keys, None, 8)
    half = half_scores(query.double(), keys.double())
    _, best = winners(
        half, *(rearrange(one, "t h k -> h t k") for one in (chosen // 64, chosen % 64))
    )  # 64 keys a half
    found = {"choice": best, "look-up": mixed, "read": out.detach(), "rows": grad.values()}
    found |= {"weights": mix.grad, "step": stepped}
    if kernels is REFERENCE:  # whose backward leaves rows to the step
        return found | {"step in backward": stepped}
    moved, sums = values.clone().requires_grad_(), torch.zeros_like(values[:, :1])
    kernels.weighted_read(moved, at, weights, update=lambda: (sums, 0.1, 1e-8)).backward(upstream)
    return found | {"step in backward": moved.detach()}


def copied(bytes_each: int = 2**31) -> float:
    """The bandwidth of a copy in GB/s, reading and writing."""
    source = torch.empty(bytes_each, dtype=torch.uint8)
    target = torch.empty_like(source)
    times = take_turns({"copy": waiting(lambda: target.copy_(source))}, 12)
    return 2 * bytes_each / times["copy"]["ms"] / 1e6


def layers(width: int, bits: int, k: int, rounds: int) -> dict[str, Any]:
    """The time of every side, and its ratio to SwiGLU's."""
    times: dict[str, dict[str, Any]] = {}
    for name, make in SIDES.items():
        try:
            both = {DENSE: SIDES[DENSE], name: make}
            sides = {
                side: waiting(peers.stepping(*build(width, bits, k), width, TOKENS)) for side, build in both.items()
            }
            pair = take_turns(sides, rounds, 5.0)
            times[name] = pair[name] | {"times_dense": ratio(pair[name], pair[DENSE])}
        except torch.cuda.OutOfMemoryError:
            times[name] = {"left_out": "out of memory"}
        sides = {}
        gc.collect()
        torch.cuda.empty_cache()
    return {"width": width, "log2_slots": bits, "topk": k, "times": times}


def models(width: int, blocks: list[int], rounds: int) -> dict[str, Any]:
    """Tokens per second of whole models at equal FLOPs a token: with memories, and dense."""
    shape = ["model.depth=8", f"model.blocks={blocks}".replace(" ", ""), "match.reference.d_key=null"]
    shape += ["world=biographies", "num_keys=1024", "match.multiple_of=64", "rates.arm=null"]
    shape += [f"model.d_model={width}", f"model.num_heads={width // 64}", f"model.hidden={8 * width // 3}"]
    shape += [f"training.batch_tokens={TOKENS}"]
    of_memory = ["model.ffn.d_key=null", "model.ffn.pool=shared"]
    steps = {
        "memory": TrainingStep(configured("arm=memory", *shape, *of_memory), "cuda"),
        "dense": TrainingStep(configured("arm=dense", *shape), "cuda"),
    }
    times = take_turns({name: waiting(step) for name, step in steps.items()}, rounds, 15.0)
    documents = {name: sum(batch.tokens.numel() for batch in step.batches) / BATCHES for name, step in steps.items()}
    return {
        "width": width,
        "memories": len(blocks),
        "tokens_per_second": {name: 1e3 * documents[name] / times[name]["ms"] for name in steps},
        "flops_per_token": {name: step.plan.matched.cost.flops for name, step in steps.items()},
        "times_dense": ratio(times["memory"], times["dense"]),
    }


def measure(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "layers": [], "models": []}
    found["errors"] = exact("cuda", 512, (32, 256, 1100))  # before products are of TF32
    torch.backends.cuda.matmul.allow_tf32 = True
    with torch.device("cuda"):
        found["copy_gb_per_second"] = copied()
        for width, bits, k in SHAPES:
            found["layers"].append(layers(width, bits, k, rounds))
    for width, blocks in MODELS:
        found["models"].append(models(width, blocks, rounds))
    return found


def targets(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Targets as (name, value, limit), where value is to be at most limit."""
    by_shape = {
        (measured["width"], measured["log2_slots"], measured["topk"]): measured["times"] for measured in found["layers"]
    }
    triples = [(f"gpu: error of {name} beside float64", value, 1e-5) for name, value in found["errors"].items()]
    for shape, times in by_shape.items():
        ours = times[OURS].get("times_dense", float("inf"))
        if shape == (1024, 20, 8):
            triples.append(("gpu: step at width 1,024, 2**20 slots, k 8, times SwiGLU's", ours, 1.5))
        for name, measured in times.items():
            if not name.startswith("memlayers") and name != DENSE and "ms" in measured:
                triples.append((f"gpu: step beside {name} at {shape}, ratio", ours / measured["times_dense"], 1.0))
    return triples
