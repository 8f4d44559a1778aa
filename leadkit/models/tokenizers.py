"""Tokenisers like BERT's or RoBERTa's: loading, identity, and how they join a pair of texts."""

import json

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from leadkit.models import names


def load_tokenizer(encoder: str) -> PreTrainedTokenizerBase:
    """The tokeniser of an encoder.

    OSError where there is none of that name. ValueError where it is damaged, asks for code of its
    own, or does not put [CLS] (RoBERTa: <s>) before each text and [SEP] (</s>) behind it.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            names.tokenizer_source(encoder), trust_remote_code=False
        )
        ids = tokenizer("a")["input_ids"]
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise names.unreadable(encoder, error) from error
    _check(encoder, tokenizer, ids)
    return tokenizer


def _check(encoder: str, tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> None:
    """ValueError unless the tokeniser works as BERT's does; ids: what it makes of "a"."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser has no words; the folder needs a tokenizer.json "
            "or vocab.txt"
        )
    special = {
        "[CLS] (or <s>)": tokenizer.cls_token_id,
        "[SEP] (or </s>)": tokenizer.sep_token_id,
        "[PAD] (or <pad>)": tokenizer.pad_token_id,
    }
    lacking = [name for name, token in special.items() if token is None]
    if lacking:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser lacks {', '.join(lacking)}; one like BERT's or "
            "RoBERTa's is needed"
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser is written in Python; the folder needs a "
            "tokenizer.json"
        )
    if ids[0] != tokenizer.cls_token_id or ids[-1] != tokenizer.sep_token_id:
        raise ValueError(
            f"encoder {encoder!r}: its tokeniser makes {tokenizer.decode(ids)!r} of the text 'a'; "
            f"{tokenizer.cls_token} must stand before a text and {tokenizer.sep_token} behind it"
        )


def identity(tokenizer: PreTrainedTokenizerBase) -> dict:
    """What a tokeniser is. It also remembers how it last cut and padded; that is left out."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    return whole | {"truncation": None, "padding": None}


def separators(tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, int]:
    """What stands between "[CLS] query [SEP]" and "passage [SEP]", and the passage's token type.

    Nothing and 1 for BERT, a second separator and 0 for RoBERTa. ValueError for a tokeniser that
    makes other pairs.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    text = backend.encode("a").ids
    pair = backend.encode("a", "a")
    between = pair.ids[len(text) : len(pair) - len(text) + 1]
    if pair.ids != [*text, *between, *text[1:]]:
        raise ValueError(
            f"tokeniser {tokenizer.name_or_path!r} makes {tokenizer.decode(pair.ids)!r} of the "
            "pair 'a', 'a': both must stand there as each stands alone, but for the second one's "
            "[CLS]"
        )
    return np.array(between, np.int32), pair.type_ids[-1]
