"""Our transformer under the interface of transformers: logits, loss, generate, save_pretrained."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from memlayers.exported.config import MemlayersConfig
from memlayers.kernels import REFERENCE, choose
from memlayers.model import build_model, init_parameters


class MemlayersForCausalLM(PreTrainedModel, GenerationMixin):
    """A `Transformer` of ours. There is no cache: `generate` computes the whole text anew for each token."""

    config_class = MemlayersConfig
    base_model_prefix = ""
    _supports_sdpa = True

    def __init__(self, config: MemlayersConfig):
        super().__init__(config)
        shape = config.model()
        kernels = choose("auto") if torch.get_default_dtype() == torch.float32 else REFERENCE
        self.transformer = build_model(shape, config.vocab_size, None, kernels)
        if self.device.type != "meta":  # else from_pretrained reads all parameters
            init_parameters(self.transformer, torch.default_generator, shape.embedding_std, shape.depth * shape.loops)
        self._tied_weights_keys = shared(self.transformer, "transformer.")
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """All is drawn above, by our rules."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        """input_ids (b, s) -> logits (b, s, vocabulary); with `labels` (b, s) the mean loss of those that are not -100.

        `attention_mask` (b, s) may be 0 before and after a text. Logits at such positions say nothing.
        """
        batch, length = input_ids.shape
        place = torch.arange(length, device=input_ids.device).expand(batch, length)
        start = 0 if attention_mask is None else attention_mask.long().argmax(dim=1, keepdim=True)
        # Our positions and n-grams begin with a text, so what stands before it goes behind it, and comes back.
        tokens = input_ids.gather(1, (place + start) % length)
        made = self.transformer(tokens)
        logits = made.logits.unflatten(0, (batch, length))
        logits = logits.gather(1, ((place - start) % length)[..., None].expand_as(logits))
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
            loss = loss if made.aux_loss is None else loss + made.aux_loss
        return CausalLMOutput(loss=loss, logits=logits)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As for any model of transformers. Raises ValueError for tensors that are missing or too many."""
        is_asked = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        model, found = loaded
        if wrong := sorted({*found["missing_keys"], *found["unexpected_keys"]}):
            where = pretrained_model_name_or_path
            raise ValueError(f"{where}: {len(wrong)} tensors missing or unknown, such as {wrong[0]}; accepted: none")
        return loaded if is_asked else model

    @property
    def dtype(self) -> torch.dtype:
        """Of all but tables, which may be of another."""
        return self.transformer.embedding.weight.dtype

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.transformer.embedding


def shared(model: torch.nn.Module, prefix: str) -> dict[str, str]:
    """Other names of parameters -> the first: tables stand under `pools` and in the layers that read them."""
    first: dict[int, str] = {}
    names = ((f"{prefix}{name}", id(one)) for name, one in model.named_parameters(remove_duplicate=False))
    return {name: first[key] for name, key in names if first.setdefault(key, name) != name}


AutoModelForCausalLM.register(MemlayersConfig, MemlayersForCausalLM, exist_ok=True)
