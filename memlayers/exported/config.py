"""The config of an exported model: what `build_model` needs, beside the names by which transformers knows sizes."""

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import AutoConfig

from memlayers import __version__
from memlayers.config.digest import settings
from memlayers.config.model import ModelConfig
from memlayers.layers import LAYERS
from memlayers.training.restore import filled

FORMAT = 1  # counted up when older folders can no longer be read


class MemlayersConfig(PreTrainedConfig):
    """`memlayers` holds the settings of the model as they are after matching: {"format", "version", "model"}."""

    model_type = "memlayers"
    memlayers: dict[str, Any] | None = None
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    tie_word_embeddings: bool = True  # tables that layers share are tied; a head of its own has another name
    use_cache: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | None = 1
    pad_token_id: int | None = 0

    def model(self) -> ModelConfig:
        """Raises ValueError, in one line, for a config that no export wrote, or another version's."""
        said = self.memlayers or {}
        if said.get("format") != FORMAT:
            version = said.get("version", "something else")
            raise ValueError(f"config.json: written by memlayers {version}; accepted: format {FORMAT} of its export")
        made = filled(ModelConfig, said["model"], {kind.__name__: kind for kind in LAYERS})
        assert isinstance(made, ModelConfig)
        return made


def config_of(model: ModelConfig, num_tokens: int) -> MemlayersConfig:
    return MemlayersConfig(
        memlayers={"format": FORMAT, "version": __version__, "model": settings(model)},
        vocab_size=num_tokens,
        hidden_size=model.d_model,
        num_hidden_layers=model.depth,
        num_attention_heads=model.num_heads,
    )


AutoConfig.register("memlayers", MemlayersConfig, exist_ok=True)
