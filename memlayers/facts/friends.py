"""Facts over a friend, which two stored facts answer together (Physics of Language Models 3.2; Wang et al. 2024).

17 [friend] 4          4 [hobby] chess          told of everybody
17 [friend_hobby] chess                         told of some; of the others only asked: it has to be composed
"""

from dataclasses import replace

import torch

from memlayers.facts.world import World

FRIEND = "friend"


def with_friends(world: World, share: float, generator: torch.Generator) -> World:
    """The world with a friend of each subject, uniform among the others, and each fact of the friend as one of the
    subject. Facts over a friend have weight 0 but for a `share` of subjects, of whom they are told like all others.

    Raises ValueError where that is nobody, or everybody.
    """
    count, relations = world.facts.shape
    told = round(share * count)
    if not 0 < told < count:
        raise ValueError(
            f"world.two_hop={share}: facts over a friend are told of {told} of {count} subjects; accepted: a share of "
            "one or more, but not of all"
        )
    friend = (torch.arange(count) + torch.randint(1, count, (count,), generator=generator)) % count
    is_told = torch.randperm(count, generator=generator) < told
    of_subject = world.weights.amax(dim=1, keepdim=True)
    return replace(
        world,
        relations=(*world.relations, FRIEND, *(f"{FRIEND}_{name}" for name in world.relations)),
        objects=(*world.objects, world.subjects, *world.objects),
        facts=torch.cat([world.facts, friend[:, None], world.facts[friend]], dim=1),
        weights=torch.cat([world.weights, of_subject, of_subject * is_told[:, None].expand(-1, relations)], dim=1),
        hops={relations + 1 + one: (relations, one) for one in range(relations)},
    )
