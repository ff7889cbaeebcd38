"""Worlds of facts: subjects x relations -> objects, with frequencies, spelled in shared tokens."""

from memlayers.config import AtlasConfig, BiographiesConfig, PicturesConfig, TriplesConfig, WorldConfig
from memlayers.facts.world import World

__all__ = ["World", "build_world"]


def build_world(config: WorldConfig) -> World:
    """The world that a configuration describes; raises ValueError with one line for a user's mistake."""
    config.validate()
    if config.prose.pieces is None:
        return in_words(config)
    from memlayers.facts.pieces import in_pieces

    return in_pieces(in_words(config), config.prose.pieces, config.corpus if config.corpus.share > 0 else None)


def in_words(config: WorldConfig) -> World:
    """The world before byte-pair encoding: each word is one token, and names are spelt by the world's own spelling."""
    if isinstance(config, AtlasConfig):
        from memlayers.facts.atlas import build_atlas

        return build_atlas(config)
    if isinstance(config, BiographiesConfig):
        from memlayers.facts.biographies import build_biographies

        return build_biographies(config)
    if isinstance(config, PicturesConfig):
        from memlayers.facts.pictures import build_pictures

        return build_pictures(config)
    if isinstance(config, TriplesConfig):
        from memlayers.facts.triples import build_triples

        return build_triples(config)
    raise TypeError(f"no world is built from a {type(config).__name__}")
