"""The vectors that a dual encoder gives to the passages of a collection."""

from functools import cache

import numpy as np
from scipy.special import entr

from leadkit.experiments.evaluation import searches
from leadkit.experiments.ready import Ready, as_it_came
from leadkit.experiments.store import Trained
from leadkit.experiments.texts import collection, passages_of
from leadkit.retrieval.dense import encode


def effective_rank(vectors: np.ndarray) -> float:
    """How many directions vectors (P, H) use around their mean: 1 to H.

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


def likeness(vectors: np.ndarray, others: np.ndarray) -> float:
    """How alike the same texts lie in two spaces, (P, H) and (P, H'): 0 to 1, linear CKA.

    Rotations, one scale for all and the place of the mean make no difference. Kornblith et al.,
    ICML 2019. NaN where all vectors of a space are the same.

    >>> corner = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> round(likeness(corner, 3 * corner[:, ::-1] + 1), 6)
    1.0
    """
    x, y = vectors - vectors.mean(0), others - others.mean(0)
    if not x.any() or not y.any():
        return float("nan")
    norm = np.linalg.norm  # Frobenius
    # \|X^T Y\|_F^2 / (\|X^T X\|_F \|Y^T Y\|_F)
    return float(norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))  # (H, H') -> ()


def checked(retriever: Trained | None, passages: int) -> Trained:
    """The retriever. ValueError where passages have no vector, or where there are fewer of them."""
    if retriever is None or not searches(retriever):
        kind = retriever.tower.architecture if retriever else "BM25"
        raise ValueError(f"retriever is a {kind}: a passage has no one vector, use a dual encoder")
    there = len(collection(retriever.data.collection).passages)
    if not 2 <= passages <= there:
        raise ValueError(f"passages is {passages}: it must be from 2 to {there}")
    return retriever


def passage_vectors(retriever: Trained, passages: int) -> np.ndarray:
    """The vectors (P, H) of so many passages, drawn alike for all retrievers of a collection.

    Raises as `checked`.
    """
    checked(retriever, passages)
    texts = passages_of(retriever.tower, retriever.data)
    rows = np.random.default_rng(0).choice(len(texts), passages, replace=False)
    return encode(retriever.model(), texts.take(np.sort(rows)))


@cache  # the students of an encoder share it
def _before(encoder: Ready, passages: int) -> np.ndarray:
    return passage_vectors(encoder, passages)


def measured(retriever: Trained, passages: int) -> dict[str, float]:
    """The effective rank of passages' vectors, and their likeness to the encoder's as it came.

    Raises as `checked`.
    """
    vectors = passage_vectors(retriever, passages)
    encoder = _before(as_it_came(retriever), passages)
    return {"effective rank": effective_rank(vectors), "likeness": likeness(vectors, encoder)}
