"""How many directions a dual encoder uses for the passages of a collection."""

import numpy as np
from scipy.special import entr

from leadkit.experiments.evaluation import searches
from leadkit.experiments.store import Trained
from leadkit.experiments.texts import collection, passages_of
from leadkit.retrieval.dense import encode


def effective_rank(vectors: np.ndarray) -> float:
    """The effective rank of vectors (P, H) around their mean: 1 to H, in directions.

    Roy and Vetterli, EUSIPCO 2007. NaN where all vectors are the same.

    >>> square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> round(effective_rank(square), 6)
    2.0
    """
    singular = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)  # (min(P, H),)
    if not singular.any():
        return float("nan")
    # p_i = \sigma_i / \sum_j \sigma_j
    share = singular / singular.sum()
    # \exp(-\sum_i p_i \log p_i)
    return float(np.exp(entr(share).sum()))


def checked(retriever: Trained | None, passages: int) -> Trained:
    """The retriever. ValueError where passages have no vector, or where there are fewer of them."""
    if retriever is None or not searches(retriever):
        kind = retriever.tower.architecture if retriever else "BM25"
        raise ValueError(f"retriever is a {kind}: a passage has no one vector, use a dual encoder")
    there = len(collection(retriever.data.collection).passages)
    if not 2 <= passages <= there:
        raise ValueError(f"passages is {passages}: it must be from 2 to {there}")
    return retriever


def passage_spread(retriever: Trained, passages: int) -> float:
    """The effective rank of so many passages, drawn alike for all retrievers of a collection.

    Raises as `checked`.
    """
    checked(retriever, passages)
    texts = passages_of(retriever.tower, retriever.data)
    rows = np.random.default_rng(0).choice(len(texts), passages, replace=False)
    return effective_rank(encode(retriever.model(), texts.take(np.sort(rows))))
