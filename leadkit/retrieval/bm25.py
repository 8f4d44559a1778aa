"""BM25, by bm25s."""

import re
from collections.abc import Iterable
from itertools import chain, islice

import bm25s
import numpy as np
import Stemmer

from leadkit import processes
from leadkit.data.collections import Collection
from leadkit.retrieval.runs import Run, without

# Thai, Lao, Burmese, Khmer, Japanese and Chinese: no blanks between words
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
FIRST = 1000  # passages that show which language it is


class BM25:
    """BM25 (Lucene's variant, k1 = 0.9, b = 0.4) over stemmed words without English stop words.

    Where most letters of the passages are of a language without blanks between words, its words are
    all pairs of neighbouring characters (as Lucene's CJKAnalyzer); others are treated as English.
    """

    def __init__(self, passages: Iterable[str]):
        self.words = {
            "stopwords": "en",
            "stemmer": Stemmer.Stemmer("english"),
            "show_progress": False,
        }
        passages = iter(passages)
        first = list(islice(passages, FIRST))
        self.in_pairs = _is_unspaced(" ".join(first))
        texts: Iterable[str] = chain(first, passages)
        if self.in_pairs:
            processes.tell(
                "BM25: the passages are of a language without blanks, so pairs of characters are "
                "its words"
            )
            self.words["token_pattern"] = r"\S+"
            texts = map(pairs, texts)
        self.index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        self.index.index(bm25s.tokenize(texts, **self.words), show_progress=False)

    def search(self, queries: list[str], depth: int) -> Run:
        """The top `depth` passages of each query; those without a word of it have score 0."""
        depth = min(depth, self.index.scores["num_docs"])
        texts = list(map(pairs, queries)) if self.in_pairs else queries
        words = bm25s.tokenize(texts, **self.words)
        rows, scores = self.index.retrieve(words, k=depth, show_progress=False)
        return Run(rows.astype(np.int64), scores)


def _is_unspaced(text: str) -> bool:
    return 2 * len(re.findall(f"[{UNSPACED}]", text)) > len(re.findall(r"\w", text))


def pairs(text: str) -> str:
    """The words of a text, with blanks between; of a script without blanks, pairs of characters."""
    words: list[str] = []
    for run in re.findall(rf"[{UNSPACED}]+|[^\W{UNSPACED}]+", text):
        if re.match(f"[{UNSPACED}]", run):
            words += [run[i : i + 2] for i in range(max(1, len(run) - 1))]
        else:
            words.append(run)
    return " ".join(words)


def bm25(collection: Collection, split: str, depth: int) -> Run:
    """The run of `BM25` for the queries of a split."""
    queries = list(collection.split(split).values())
    own = collection.own_rows(split)
    has_own = bool((own >= 0).any())
    run = BM25(collection.passages.values()).search(queries, depth + has_own)
    unknown = int((run.scores[:, 0] == 0).sum())
    if 2 * unknown > len(queries):
        processes.tell(
            f"BM25 finds no word of {unknown:,} of {len(queries):,} queries of split {split!r} in "
            "any passage: it ranks their passages in the order of the file"
        )
    return without(run, own) if has_own else run
