"""The texts of a stage, loaded and tokenised once per process."""

from functools import cache

from leadkit import processes
from leadkit.config import Data
from leadkit.data.collections import Collection, load
from leadkit.data.tokens import Tokenised, tokenise
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower


@cache
def collection(name: str) -> Collection:
    """The collection of this name."""
    with processes.main_first():  # it may have to be made
        return load(name)


def queries_of(tower: Tower, data: Data, split: str) -> Tokenised:
    """The queries of a split in the tokens of a tower."""
    return _tokenised(tower.encoder, data.collection, split, data.query_tokens)


def passages_of(tower: Tower, data: Data) -> Tokenised:
    """The passages in the tokens of a tower."""
    return _tokenised(tower.encoder, data.collection, None, data.passage_tokens)


@cache
def _tokenised(encoder: str, name: str, split: str | None, longest: int) -> Tokenised:
    """The queries of a split, or without a split the passages."""
    texts = collection(name).split(split) if split else collection(name).passages
    with processes.main_first():
        return tokenise(texts, load_tokenizer(encoder), longest)
