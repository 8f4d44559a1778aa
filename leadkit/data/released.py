"""Texts as the released code gives them to a ColBERT and to a cross encoder (LEAD/dataset.py).

- ColBERT: the marker [Q] or [D] stands in the place of [CLS]. A query is filled with [MASK] to full
  length; the encoder attends to these positions and the score counts them.
- Cross encoder: query and passage have one token type.
"""

from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from leadkit.data.tokens import Tokenised

# The markers are tokens that BERT's vocabulary keeps free. A vocabulary without them, our
# miniatures' for one, has [UNK] for both, as in the released code.
QUERY, PASSAGE = "[unused1]", "[unused2]"


class MarkedPassages(Tokenised):
    """Passages that begin with [D]. The tokens stay on disk: a row is marked when it is read."""

    marker: int

    def row(self, i: int) -> np.ndarray:
        row = np.array(super().row(i))
        row[0] = self.marker
        return row


def marked_passages(texts: Tokenised, tokenizer: PreTrainedTokenizerBase) -> Tokenised:
    """The passages of a ColBERT."""
    marked = MarkedPassages(texts.flat, texts.offsets, texts.pad, texts.between, texts.kind)
    marked.marker = cast(int, tokenizer.convert_tokens_to_ids(PASSAGE))
    return marked


def marked_queries(texts: Tokenised, tokenizer: PreTrainedTokenizerBase, length: int) -> Tokenised:
    """The queries of a ColBERT, each of `length` tokens.

    ValueError for a tokeniser without [MASK].
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"tokeniser {tokenizer.name_or_path!r} has no [MASK]: the released ColBERT fills its "
            "queries with it; use variant 'paper'"
        )
    rows = np.full((len(texts), length), tokenizer.mask_token_id, texts.flat.dtype)  # (Q, length)
    for i, row in enumerate(rows):
        tokens = texts.row(i)
        row[: len(tokens)] = tokens
    rows[:, 0] = tokenizer.convert_tokens_to_ids(QUERY)
    offsets = length * np.arange(len(texts) + 1)
    return Tokenised(rows.ravel(), offsets, texts.pad, texts.between, texts.kind)


def passages_of_pairs(texts: Tokenised) -> Tokenised:
    """The passages of a cross encoder."""
    return Tokenised(texts.flat, texts.offsets, texts.pad, texts.between, kind=0)
