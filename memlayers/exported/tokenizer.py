"""The tokens of a world as a tokenizer of transformers.

in words     S Y D [country] country:AU      tokens between single spaces; a space within a token is written ▁
in pieces    S Y D lies in AU<end> .        as byte-pair encoding writes words, and <end> where an object ends

The text of a document is what `decode` makes of its tokens, and `encode` gives those tokens back.
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
    """A PreTrainedTokenizerFast with the ids of `text.vocabulary`; it pads by <pad>, and <end> ends what is generated.

    A word without a token is an error, as no token stands for others. Raises ValueError, in one line, for a vocabulary
    whose tokens could not be told apart in a text.
    """
    made = in_pieces(text, text.world.encode) if isinstance(text.world.encode, Pieces) else in_words(text)
    made.add_special_tokens([AddedToken(one, normalized=False) for one in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=SPECIAL_TOKENS[PAD],
        eos_token=SPECIAL_TOKENS[END],
        clean_up_tokenization_spaces=False,
        padding_side="left",  # as generate wants it
        model_input_names=["input_ids", "attention_mask"],
    )


def in_words(text: Text) -> Tokenizer:
    """One token a word."""
    words = [token.replace(" ", SPACE) for token in text.vocabulary]
    ids = {word: index for index, word in enumerate(words)}
    for index, word in enumerate(words):
        if ids[word] != index or any(special in word for special in SPECIAL_TOKENS if word not in SPECIAL_TOKENS):
            raise ValueError(f"world {text.world.name}: token {text.vocabulary[index]!r} could be read as another one")
    made = Tokenizer(models.WordLevel(ids, unk_token=""))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    return made


def in_pieces(text: Text, encode: Pieces) -> Tokenizer:
    """The byte-pair encoding of the world, behind our special tokens; words that it lacks are tokens of their own."""
    merges = [tuple(pair) for pair in json.loads(encode.tokenizer.to_str())["model"]["merges"]]
    made = Tokenizer(models.BPE({token: index for index, token in enumerate(text.vocabulary)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    known = len(SPECIAL_TOKENS) + encode.tokenizer.get_vocab_size()
    made.add_tokens([AddedToken(word, normalized=False) for word in text.vocabulary[known:]])
    return made
