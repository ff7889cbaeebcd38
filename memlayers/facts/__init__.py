"""Worlds of facts: subjects x relations -> objects, with frequencies, spelled in shared tokens."""

from collections.abc import Callable
from typing import Any

from memlayers.config import AtlasConfig, BiographiesConfig, PicturesConfig, TriplesConfig, WorldConfig
from memlayers.facts.atlas import build_atlas
from memlayers.facts.biographies import build_biographies
from memlayers.facts.pictures import build_pictures
from memlayers.facts.pieces import in_pieces
from memlayers.facts.triples import build_triples
from memlayers.facts.world import World

__all__ = ["World", "build_world"]

BUILD: dict[type, Callable[[Any], World]] = {
    AtlasConfig: build_atlas,
    BiographiesConfig: build_biographies,
    PicturesConfig: build_pictures,
    TriplesConfig: build_triples,
}


def build_world(config: WorldConfig) -> World:
    """The world that a configuration describes; raises ValueError with one line for a user's mistake."""
    config.validate()
    world = BUILD[type(config)](config)  # each word is one token, and names are spelt by the world's own spelling
    if config.prose.pieces is None:
        return world
    return in_pieces(world, config.prose.pieces, config.corpus if config.corpus.share > 0 else None)
