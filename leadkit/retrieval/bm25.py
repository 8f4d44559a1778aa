"""BM25, by bm25s."""

from collections.abc import Iterable

import bm25s
import numpy as np
import Stemmer

from leadkit.data.collections import Collection
from leadkit.retrieval.runs import Run


class BM25:
    """BM25 (Lucene's variant, k1 = 0.9, b = 0.4) over stemmed words without English stop words."""

    def __init__(self, passages: Iterable[str]):
        self.words = {
            "stopwords": "en",
            "stemmer": Stemmer.Stemmer("english"),
            "show_progress": False,
        }
        self.index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self.index.index(bm25s.tokenize(passages, **self.words), show_progress=False)

    def search(self, queries: list[str], depth: int) -> Run:
        """The top `depth` passages of each query; those without a word of it have score 0."""
        depth = min(depth, self.index.scores["num_docs"])
        words = bm25s.tokenize(queries, **self.words)
        rows, scores = self.index.retrieve(words, k=depth, show_progress=False)
        return Run(rows.astype(np.int64), scores)


def bm25(collection: Collection, split: str, depth: int) -> Run:
    """The run of `BM25` for the queries of a split."""
    queries = list(collection.split(split).values())
    return BM25(collection.passages.values()).search(queries, depth)
