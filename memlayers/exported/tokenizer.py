"""The tokens of a world as a tokenizer of transformers.

in words     SY YD [country] country:AU      tokens between single spaces; a space within a token is written ▁
in pieces    S Y D lies in AU<end> .        as byte-pair encoding writes words, and <end> where an object ends

`decode` turns the tokens of a document into its text, and `encode` is its inverse.
"""

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from memlayers.facts.pieces import Pieces
from memlayers.facts.world import END, PAD, SPECIAL_TOKENS
from memlayers.text import Text

SPACE = "▁"


def tokenizer_of(text: Text) -> Any:
    """A PreTrainedTokenizerFast with the ids of `text.vocabulary`; <pad> is its padding and <end> ends generation.

    There is no unknown token: encoding a word without a token is an error. Raises ValueError, in one line, for a
    vocabulary whose tokens are ambiguous in a text.
    """
    tokenizer = in_pieces(text, text.world.encode) if isinstance(text.world.encode, Pieces) else in_words(text)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=SPECIAL_TOKENS[END],
        clean_up_tokenization_spaces=False,
        padding_side="left",  # as generate needs it
        model_input_names=["input_ids", "attention_mask"],
    )


def in_words(text: Text) -> Tokenizer:
    """A tokenizer with one token a word."""
    words = [token.replace(" ", SPACE) for token in text.vocabulary]
    ids = {word: index for index, word in enumerate(words)}
    for index, word in enumerate(words):
        if ids[word] != index or any(special in word for special in SPECIAL_TOKENS if word not in SPECIAL_TOKENS):
            raise ValueError(f"world {text.world.name}: token {text.vocabulary[index]!r} could be read as another one")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return tokenizer


def in_pieces(text: Text, encode: Pieces) -> Tokenizer:
    """The world's byte-pair encoding after our special tokens, and words that it lacks as added tokens."""
    merges = [tuple(pair) for pair in json.loads(encode.tokenizer.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(text.vocabulary)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    known = len(SPECIAL_TOKENS) + encode.tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in text.vocabulary[known:]])
    return tokenizer
