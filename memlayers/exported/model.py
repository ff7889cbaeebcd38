"""Our transformer with the interface of transformers: logits, loss, generate, save_pretrained."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from memlayers.exported.config import MemlayersConfig
from memlayers.kernels import REFERENCE, choose
from memlayers.model import build_model, init_parameters

NOT_SUPPORTED = ("past_key_values", "position_ids", "output_hidden_states", "output_attentions")


class MemlayersForCausalLM(PreTrainedModel, GenerationMixin):
    """Wraps our `Transformer`. Without a cache: `generate` recomputes the whole text for each token.

    Gradients of its tables are sparse. Before training with AdamW, Trainer or clip_grad_norm_, call
    memlayers.param_groups(model, tables="dense").
    """

    config_class = MemlayersConfig
    accepts_loss_kwargs = False  # the loss is a mean, which Trainer divides by its steps of accumulation
    base_model_prefix = ""
    _supports_sdpa = True

    def __init__(self, config: MemlayersConfig):
        super().__init__(config)
        shape = config.model()
        kernels = choose("auto") if torch.get_default_dtype() == torch.float32 else REFERENCE
        self.transformer = build_model(shape, config.vocab_size, None, kernels)
        if self.device.type != "meta":  # on meta, from_pretrained loads all parameters
            depth = shape.depth * shape.loops
            init_parameters(self.transformer, torch.default_generator, shape.embedding_std, depth, shape.value_scale)
        self._tied_weights_keys = shared(self.transformer, "transformer.")
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Does nothing: __init__ draws all parameters by our rules."""

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """The whole text, also where the caller asks for a cache."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **others: Any
    ) -> CausalLMOutput:
        """input_ids (b, s) -> logits (b, s, vocabulary); with `labels` (b, s) the mean loss of those that are not -100.

        `attention_mask` (b, s) may be 0 before and after a text. Logits at such positions have no meaning. Raises
        ValueError for arguments of other models that would change the output.
        """
        for name in NOT_SUPPORTED:
            if others.get(name) is not None and others[name] is not False:
                raise ValueError(f"{name} is not supported; accepted: input_ids, attention_mask, labels")
        if others.get("return_dict") is False or others.get("logits_to_keep"):
            raise ValueError("return_dict=False and logits_to_keep are not supported; accepted: without them")
        batch, length = input_ids.shape
        place = torch.arange(length, device=input_ids.device).expand(batch, length)
        start = 0 if attention_mask is None else attention_mask.long().argmax(dim=1, keepdim=True)
        # Positions and n-grams count from the start of a text: rotate padding before it to its end, and logits back.
        tokens = input_ids.gather(1, (place + start) % length)
        out = self.transformer(tokens)
        logits = out.logits.unflatten(0, (batch, length))
        logits = logits.gather(1, ((place - start) % length)[..., None].expand_as(logits))
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
            loss = loss if out.aux_loss is None else loss + out.aux_loss
        return CausalLMOutput(loss=loss, logits=logits)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """As for any model of transformers. Raises ValueError for missing or unexpected tensors."""
        is_asked = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        model, info = loaded
        if wrong := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
            where = pretrained_model_name_or_path
            raise ValueError(f"{where}: {len(wrong)} tensors missing or unknown, such as {wrong[0]}; accepted: none")
        return loaded if is_asked else model

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all parameters but tables, which may have another."""
        return self.transformer.embedding.weight.dtype

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.transformer.embedding

    def resize_token_embeddings(self, *_: Any, **__: Any) -> Any:
        """Raises ValueError: the tokens are those of a world."""
        raise ValueError(f"{self.config.vocab_size} tokens are those of the world; accepted: no others")


def shared(model: torch.nn.Module, prefix: str) -> dict[str, str]:
    """Maps further names of shared parameters to the first: tables are in `pools` and in the layers that read them."""
    first: dict[int, str] = {}
    names = ((f"{prefix}{name}", id(parameter)) for name, parameter in model.named_parameters(remove_duplicate=False))
    return {name: first[key] for name, key in names if first.setdefault(key, name) != name}


AutoModelForCausalLM.register(MemlayersConfig, MemlayersForCausalLM, exist_ok=True)
