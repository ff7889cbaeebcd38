"""Running text (memlayers/running_text.py) in the tokens of a world, and stretches of it to train on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from memlayers.config.text import CorpusConfig
from memlayers.running_text import Source, content_digest


class Corpus(NamedTuple):
    """One source as streams of tokens; the documents of each are put together in order."""

    name: str
    digest: str  # of the text
    train: Tensor  # (t,)
    held_out: Tensor  # (h,)


def in_tokens(
    source: str, documents: Source, encode: Callable[[Sequence[str]], list[list[int]]], length: int
) -> Corpus:
    """The documents of a source as token ids. Raises ValueError where one part has fewer than `length`."""
    train, held_out = (torch.tensor([token for row in encode(part) for token in row]) for part in documents)
    if min(len(train), len(held_out)) < length:
        raise ValueError(
            f"world.corpus.sources: {source} has {len(train)} tokens to train on and {len(held_out)} held out; "
            f"accepted: world.corpus.length={length} or more of each"
        )
    return Corpus(Path(source).name or source, content_digest(source), train, held_out)


def draw_windows(corpora: Sequence[Corpus], count: int, length: int, generator: torch.Generator) -> Tensor:
    """Stretches of training text (count, length), as often from each corpus, from anywhere in it."""
    which = torch.randint(len(corpora), (count,), generator=generator)
    where = torch.rand(count, generator=generator, dtype=torch.float64)
    rows = torch.empty(count, length, dtype=torch.long)
    for index, corpus in enumerate(corpora):
        mine = which == index
        start = (where[mine] * (len(corpus.train) - length + 1)).long()
        rows[mine] = corpus.train[start[:, None] + torch.arange(length)]
    return rows


def share_of_rows(config: CorpusConfig, length: float) -> float:
    """Which share of rows must be running text for its share of tokens, if other rows have `length` tokens."""
    of_text, of_others = config.share * length, (1 - config.share) * config.length
    return of_text / (of_text + of_others)
