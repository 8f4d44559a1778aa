"""The texts of a stage, loaded and tokenised once per process, as its tower reads them."""

from functools import cache

from leadkit import processes
from leadkit.config import Data
from leadkit.data import released
from leadkit.data.collections import Collection, load
from leadkit.data.tokens import Tokenised, tokenise
from leadkit.models.retrievers import architecture
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower, passage_in_pair


@cache
def collection(name: str) -> Collection:
    """The collection of this name."""
    with processes.main_first():  # irds: may have to be written
        return load(name)


def queries_of(tower: Tower, data: Data, split: str) -> Tokenised:
    """The queries of a split in the tokens of a tower."""
    texts = _tokenised(tower.encoder, data.collection, split, data.query_tokens)
    if tower.released and architecture(tower.architecture).marks:
        return released.marked_queries(texts, load_tokenizer(tower.encoder), data.query_tokens)
    return texts


def passages_of(tower: Tower, data: Data) -> Tokenised:
    """The passages in the tokens of a tower."""
    reader = architecture(tower.architecture)
    longest = data.passage_tokens
    if reader.pairs_only:
        longest = passage_in_pair(tower, data.query_tokens, longest, data.pair_tokens)
    texts = _tokenised(tower.encoder, data.collection, None, longest)
    if tower.released and reader.marks:
        return released.marked_passages(texts, load_tokenizer(tower.encoder))
    if tower.released and reader.pairs_only:
        return released.passages_of_pairs(texts)
    return texts


@cache
def _tokenised(encoder: str, name: str, split: str | None, longest: int) -> Tokenised:
    """The queries of a split, or without a split the passages."""
    texts = collection(name).split(split) if split else collection(name).passages
    with processes.main_first():
        return tokenise(texts, load_tokenizer(encoder), longest)
