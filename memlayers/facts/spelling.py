"""Spellings: how a subject's name becomes tokens that subjects share.

    letters   "SYD"               S  Y  D
    pairs     "SYD"               SY  YD
    bytes     "中" (U+4E2D)       hi:4e  lo:2d              one character: its code point, high and low byte apart
              "SYD"               byte:53  byte:59  byte:44  longer names: UTF-8
    bpe       "Sydney Kingsford"  bpe:ĠS  bpe:yd  bpe:ney  bpe:ĠKing  bpe:s  bpe:ford

Every spelling is invertible, so that two names never get the same tokens; a repeated name is an error.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from memlayers.facts.world import Vocabulary

Speller = Callable[[str], list[str]]  # a name -> its tokens as text


def letters(name: str) -> list[str]:
    """One token a character, the same at every position."""
    return list(name)


def pairs(name: str) -> list[str]:
    """Overlapping pairs of characters; a name of one character is its own token."""
    return [name[start : start + 2] for start in range(max(len(name) - 1, 1))]


def code_bytes(name: str) -> list[str]:
    """For a single character, the two bytes of its code point, from distinct token sets; else the bytes of UTF-8."""
    if len(name) == 1:
        return [f"hi:{ord(name) >> 8:02x}", f"lo:{ord(name) & 0xFF:02x}"]
    return [f"byte:{byte:02x}" for byte in name.encode()]


def byte_pairs(names: Sequence[str], num_tokens: int) -> Speller:
    """Byte-pair encoding trained on these names."""
    tokenizer = trained_tokenizer(names, num_tokens)
    return lambda name: [f"bpe:{token}" for token in tokenizer.encode(name).tokens]


def trained_tokenizer(texts: Iterable[str], num_tokens: int) -> Any:
    """Byte-pair encoding of words, each with the space before it: at most num_tokens tokens, 256 of them single bytes.

    Training is deterministic. It merges only pairs that occur twice or more, so that a rare name is spelt in pieces of
    other names, however large num_tokens is.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=num_tokens, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_speller(spelling: str, names: Sequence[str], num_bpe_tokens: int = 1000) -> Speller:
    """The function that splits a name into tokens; only bpe uses `names` and `num_bpe_tokens`."""
    if spelling == "bpe":
        return byte_pairs(names, num_bpe_tokens)
    return {"letters": letters, "pairs": pairs, "bytes": code_bytes}[spelling]


def spell(names: Sequence[str], speller: Speller, vocabulary: Vocabulary) -> list[list[int]]:
    """Token ids of each name, all rows distinct; new tokens are added to the vocabulary.

    Raises ValueError for an empty name, and for two names with the same spelling.
    """
    seen: dict[tuple[int, ...], str] = {}
    for name in names:
        row = tuple(vocabulary[token] for token in speller(name)) if name else ()
        if not row:
            raise ValueError("a subject has an empty name; accepted: names of one character or more")
        if row in seen:
            raise ValueError(f"subjects {seen[row]!r} and {name!r} have the same spelling; accepted: distinct names")
        seen[row] = name
    return [list(row) for row in seen]
