"""The module that replaces a feed-forward of another model, and the replacement itself."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from memlayers.kernels import REFERENCE, choose
from memlayers.layers.site import Settings, Site
from memlayers.model import init_parameters


class Swapped(nn.Module):
    """Our layer with the interface of a plain feed-forward: (..., d_model) -> (..., d_model), in the input's dtype."""

    # For transformers' save_pretrained: tensors of these names may be shared, and are then written once.
    _tied_weights_keys: ClassVar[dict[str, str]] = {"layer.pool.values": "layer.pool.values"}

    def __init__(self, layer: Any):
        super().__init__()
        self.layer = layer

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # kernels in C and gradients of rows cannot be traced
    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError for a layer with an auxiliary loss, which a plain feed-forward cannot return."""
        out = self.layer(rearrange(torch.atleast_2d(x), "... s d -> (...) s d"), None)
        if out.aux_loss is not None:
            raise ValueError(f"{type(self.layer).__name__} has an auxiliary loss; accepted: layers without one")
        return out.hidden.reshape(x.shape).to(x.dtype)


@dataclass(frozen=True)
class Swap:
    """Which modules were replaced by which layer: enough to rebuild the model."""

    modules: list[str]
    ffn: Settings
    d_model: int
    hidden: int  # width of a dense layer with as many parameters as a module that was replaced

    def put_into(self, model: nn.Module, init: bool = False, seed: int = 0) -> None:
        """Replace the modules. With `init`, parameters are drawn as in our models; else they are left uninitialised."""
        old = {name: model.get_submodule(name) for name in self.modules}
        dtype = next(old[self.modules[0]].parameters()).dtype
        kernels = choose("auto") if dtype == torch.float32 else REFERENCE
        site = Site(self.d_model, self.hidden, 0, kernels)
        new: dict[int, Swapped] = {}
        for module in old.values():
            if id(module) not in new:  # a module may have two names
                device = next(module.parameters()).device
                with torch.device(device), torch.random.fork_rng([device] if device.type == "cuda" else []):
                    new[id(module)] = Swapped(self.ffn.build(site)).to(dtype).train(module.training)
        if getattr(self.ffn, "value_dtype", None) == "bfloat16":
            for pool in site.pools:
                pool.to(torch.bfloat16)
        if init:
            depth = len(relatives(model, self.modules[0]))
            init_parameters(nn.ModuleList(new.values()), torch.Generator().manual_seed(seed), 1.0, depth)
        for name, replaced in old.items():
            model.set_submodule(name, new[id(replaced)])


def relatives(model: nn.Module, name: str) -> list[str]:
    """Names of modules that differ from this one in numbers only: its counterparts in all blocks."""
    kind = re.sub(r"\d+", "*", name)
    return [other for other, _ in model.named_modules() if re.sub(r"\d+", "*", other) == kind]
