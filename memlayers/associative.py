"""Rows that hold their own answers: multi-query associative recall (MQAR), after Zoology (Arora et al. 2023,
arXiv 2312.04927), with names and relations instead of single tokens.

Ada Ek Fu [hobby] chess  Bo Go Li [hobby] darts  Bo Go Li [hobby] *darts*  Ada Ek Fu [hobby] *chess*

People are drawn anew for each row, so that nothing can be stored: what is asked has to be copied, by attention. All
facts of a row are in one relation, so that only the name tells which to copy.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memlayers.documents import Documents, joined
from memlayers.facts.junk import Junk


def associative_rows(
    junk: Junk, codes: Tensor, write: Callable[..., Documents], count: int, generator: torch.Generator
) -> Documents:
    """Rows (count, s) that tell junk.pairs facts in a random relation about people drawn anew, and ask them in another
    order. Names may repeat in a row, as rarely as chance has it, with other facts. `write` makes sentences of names,
    relations, facts, whether they are there, and templates, of which `codes` (r, 1, l) has one for each relation.
    """
    names, facts = junk.draw(count * junk.pairs, generator)
    relation = torch.randint(facts.shape[1], (count, 1), generator=generator).repeat_interleave(junk.pairs, dim=0)
    told = write(names, relation, facts.gather(1, relation), torch.ones_like(relation).bool(), codes[relation, 0])
    order = torch.rand(count, junk.pairs, generator=generator).argsort(dim=1)

    def in_rows(table: Tensor, order: Tensor) -> Tensor:
        of_pairs = table.view(count, junk.pairs, table.shape[1])
        return of_pairs.gather(1, order[..., None].expand_as(of_pairs)).flatten(1)

    first = Documents(*(in_rows(table, torch.arange(junk.pairs).expand_as(order)) for table in told))
    again = Documents(*(in_rows(table, order) for table in told))
    return joined(first._replace(answers=torch.zeros_like(first.answers)), again)
