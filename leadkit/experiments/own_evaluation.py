"""The evaluation of a checkpoint as it came, on any collection."""

import json
from pathlib import Path

from leadkit.config import Data
from leadkit.experiments.evaluation import Evaluate, searches
from leadkit.experiments.ready import Ready, ready_tower
from leadkit.models import names

QUERY_TOKENS, PASSAGE_TOKENS = 32, 256  # where neither user nor folder says


def plan(
    model: str,
    collection: str,
    split: str,
    first: str,
    lengths: tuple[int | None, int | None],
    depth: int,
    rerank: int,
) -> Evaluate:
    """The stage that evaluates a checkpoint; arguments as of the command.

    ValueError where `first` cannot search, or is given to a model that searches. Raises as
    `ready_tower`.
    """
    for name, value in {"depth": depth, "rerank": rerank}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: at least 1 is needed")
    retriever = _ready(model, collection, lengths)
    if searches(retriever):
        if first:
            raise ValueError(f"first is {first!r}: model {model!r} searches and needs none")
        return Evaluate(retriever.data, retriever, split, depth)
    before = _ready(first, collection, lengths) if first else None
    if not searches(before):
        raise ValueError(f"first is {first!r}: it cannot search; a DE, or nothing for BM25")
    data = before.data if before else retriever.data
    return Evaluate(
        retriever.data, retriever, split, depth, Evaluate(data, before, split, depth), rerank
    )


def _ready(model: str, collection: str, lengths: tuple[int | None, int | None]) -> Ready:
    said = _lengths_of(model)
    given = [theirs if mine is None else mine for mine, theirs in zip(lengths, said, strict=True)]
    data = Data(collection, query_tokens=given[0], passage_tokens=given[1])
    return Ready(data, ready_tower(model, 0.0, False))


def _lengths_of(model: str) -> tuple[int, int]:
    """The tokens of a query and a passage, as sentence-transformers' settings have them."""
    path = Path(names.root(model)) / "sentence_bert_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    longest = settings.get("max_seq_length")
    query = settings.get("query_length") or longest or QUERY_TOKENS
    passage = settings.get("document_length") or longest or PASSAGE_TOKENS
    return query, passage
