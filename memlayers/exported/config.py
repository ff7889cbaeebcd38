"""The config of an exported model: the settings for `build_model`, and sizes under the names of transformers."""

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from memlayers import __version__
from memlayers.config.digest import settings
from memlayers.config.model import ModelConfig
from memlayers.layers import LAYERS
from memlayers.training.restore import filled

FORMAT = 1  # raised when older folders can no longer be read


class MemlayersConfig(PreTrainedConfig):
    """`memlayers` holds the settings of the matched model: {"format", "version", "model"}."""

    model_type = "memlayers"
    memlayers: dict[str, Any] | None = None
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    tie_word_embeddings: bool = True  # shared tables are tied; an untied head has another name
    use_cache: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = 1
    pad_token_id: int | None = 0

    def model(self) -> ModelConfig:
        """The settings of the model. Raises ValueError, in one line, for a config that `export` did not write, or of
        another format.
        """
        content = self.memlayers or {}
        if content.get("format") != FORMAT:
            version = content.get("version", "something else")
            raise ValueError(f"config.json: written by memlayers {version}; accepted: format {FORMAT} of its export")
        model = filled(ModelConfig, content["model"], {kind.__name__: kind for kind in LAYERS})
        assert isinstance(model, ModelConfig)
        return model


def config_of(model: ModelConfig, num_tokens: int) -> MemlayersConfig:
    return MemlayersConfig(
        memlayers={"format": FORMAT, "version": __version__, "model": settings(model)},
        vocab_size=num_tokens,
        hidden_size=model.d_model,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
    )


AutoConfig.register("memlayers", MemlayersConfig, exist_ok=True)
