"""Facts over a friend, which two stored facts answer together (Physics of Language Models 3.2; Wang et al. 2024).

17 [friend] 4          4 [hobby] chess          told of everybody
17 [friend_hobby] chess                         told of some people, in all relations but one a person; all others
                                                are only asked, and have to be composed
"""

from dataclasses import replace

import torch
from torch import Tensor

from memlayers.facts.world import World

FRIEND = "friend"


def with_friends(world: World, share: float, generator: torch.Generator) -> World:
    """The world with a friend of each subject, uniform among the others, and each fact of the friend as one of the
    subject. Facts over a friend have weight 0 but for a `share` of subjects, of whom they are told like all others, in
    all relations but one, drawn for each subject.

    Raises ValueError where that is everybody, or so few that some relation is told of nobody.
    """
    count, relations = world.facts.shape
    friend = (torch.arange(count) + torch.randint(1, count, (count,), generator=generator)) % count
    told = round(share * count)
    is_told = (torch.randperm(count, generator=generator) < told)[:, None].repeat(1, relations)
    is_told[torch.arange(count), torch.randint(relations, (count,), generator=generator)] = False
    if told == count or not is_told.any(dim=0).all():
        raise ValueError(
            f"world.two_hop={share}: facts over a friend are told of {told} of {count} subjects, in all relations but "
            "one each; accepted: a share that is not all of them, and leaves no relation out"
        )
    of_subject = world.weights.amax(dim=1, keepdim=True)
    return replace(
        world,
        relations=(*world.relations, FRIEND, *(f"{FRIEND}_{name}" for name in world.relations)),
        objects=(*world.objects, world.subjects, *world.objects),
        facts=torch.cat([world.facts, friend[:, None], world.facts[friend]], dim=1),
        weights=torch.cat([world.weights, of_subject, of_subject * is_told], dim=1),
        hops={relations + 1 + one: (relations, one) for one in range(relations)},
    )


def steps_of(world: World, facts: Tensor) -> tuple[Tensor, Tensor]:
    """The two facts (b, 2) of which each of `facts` (b, 2) is composed: who the friend is, and what is true of it."""
    hops = torch.tensor([world.hops[relation] for relation in facts[:, 1].tolist()])
    friend = world.facts[facts[:, 0], hops[:, 0]]
    return torch.stack([facts[:, 0], hops[:, 0]], dim=1), torch.stack([friend, hops[:, 1]], dim=1)
