"""Synthetic people after bioS (Allen-Zhu & Li 2024, arXiv 2404.05405, section 2): with exactly known entropy.

    person 17     first_4 middle_61 last_9        the name: one value of each part, no two people the same
    birth_date    birth_date_203                  one token, uniform over 256 values: 8 bits
    employer      employer_77

Attributes are independent of names and of each other.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from memlayers.config import BiographiesConfig
from memlayers.facts.drawing import draw_facts, sample_distinct, spell_digits, to_digits, to_ranks
from memlayers.facts.friends import with_friends
from memlayers.facts.junk import Junk
from memlayers.facts.pieces import made_up
from memlayers.facts.sentences import templates
from memlayers.facts.world import Vocabulary, World

MAX_UNKNOWN = 2_000
MAX_NAMES = 2**62  # so that the rank of a name fits into 64 bits
ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer", "hobby")


def build_biographies(config: BiographiesConfig) -> World:
    """People with distinct names drawn from the product of the parts, attributes drawn uniformly and independently.

    Unknown people have new names made of parts that occur: 2,000, or fewer if fewer names are left.
    """
    generator = torch.Generator().manual_seed(config.seed)
    sizes, num_people = config.name_parts, config.num_people
    if math.prod(sizes) > MAX_NAMES:
        raise ValueError(f"world.name_parts={sizes} makes too many names; accepted: a product of 2**62 or less")
    names = to_digits(sample_distinct(num_people, math.prod(sizes), generator), sizes)
    facts = draw_facts(num_people, config.cardinalities, generator)
    rank = torch.randperm(num_people, generator=generator)
    frequency = (rank + 1).double() ** -config.zipf
    unknown = unknown_names(names, generator)

    vocabulary = Vocabulary()
    relations = attribute_names(len(config.cardinalities))
    words = config.prose.pieces is not None
    parts = [token_ids(part, size, vocabulary, words) for part, size in zip(part_names(len(sizes)), sizes, strict=True)]
    objects = [
        token_ids(name, size, vocabulary, words) for name, size in zip(relations, config.cardinalities, strict=True)
    ]
    world = World(
        name=config.name,
        vocabulary=vocabulary.tokens(),
        subjects=spell_digits(names, parts),
        relations=relations,
        objects=tuple(column[:, None] for column in objects),
        facts=facts,
        weights=frequency.float()[:, None].repeat(1, len(relations)),
        unknown=spell_digits(unknown, parts),
        templates=tuple(templates(relation, turn) for turn, relation in enumerate(relations)),
        junk=junk_beside(config, parts, torch.cat([names, unknown])),
    )
    return with_friends(world, config.two_hop, generator) if config.two_hop else world


def junk_beside(config: BiographiesConfig, parts: Sequence[Tensor], names: Tensor) -> Junk | None:
    """People beside those of `names` (n, parts), if the world has any. Raises ValueError where fewer names are free
    than there are subjects.
    """
    if config.junk.share == 0:
        return None
    junk = Junk(
        config.junk.share,
        config.junk.tag,
        config.junk.pairs,
        tuple(parts),
        to_ranks(names, config.name_parts),
        tuple(config.cardinalities),
    )
    if junk.num_names < config.num_people:
        raise ValueError(
            f"world.name_parts={config.name_parts} leaves {junk.num_names} names for world.junk.share="
            f"{config.junk.share}, beside subjects and {len(names) - config.num_people} unknown people; accepted: "
            f"larger parts, which leave {config.num_people} or more"
        )
    return junk


def unknown_names(names: Tensor, generator: torch.Generator) -> Tensor:
    """Names (u, parts) that are not among `names` (n, parts), of values that occur in each part."""
    used, digits = zip(*(column.unique(return_inverse=True) for column in names.T), strict=True)
    sizes = [len(values) for values in used]
    count = min(MAX_UNKNOWN, math.prod(sizes) - len(names))
    taken = to_ranks(torch.stack(digits, dim=1), sizes)
    return spell_digits(to_digits(sample_distinct(count, math.prod(sizes), generator, taken), sizes), used)


def token_ids(prefix: str, size: int, vocabulary: Vocabulary, is_made_up: bool) -> Tensor:
    """Ids (size,) of the tokens prefix_0, prefix_1 …, or of made-up words."""
    first = len(vocabulary.tokens())
    names = [made_up(first + index) if is_made_up else f"{prefix}_{index}" for index in range(size)]
    return torch.tensor([vocabulary[name] for name in names])


def part_names(count: int) -> list[str]:
    """Names of `count` parts: first, middle, last; with two no middle, with more than three middle_2, middle_3 …"""
    middles = ["middle", *(f"middle_{index}" for index in range(2, count))][: max(count - 2, 0)]
    return ["first", *middles, "last"][:count]


def attribute_names(count: int) -> tuple[str, ...]:
    """Names of `count` attributes: birth_date … hobby, then attribute_7, attribute_8 …"""
    return (*ATTRIBUTES, *(f"attribute_{index}" for index in range(len(ATTRIBUTES) + 1, count + 1)))[:count]
