"""Tests and intervals. S seeds, Q queries, R records; both seeds and queries are chance."""

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import ttest_rel


def paired_t_test(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean of a - b, two-sided p) over the same queries (Q,); p is 1 where the two never differ.

    The paper's test (section 4.2.1).
    """
    if np.array_equal(a, b):
        return 0.0, 1.0
    return float(np.mean(a - b)), float(ttest_rel(a, b).pvalue)


def crossed_t_test(differences: np.ndarray) -> tuple[float, float]:
    r"""One-sided p of (mean > 0, mean < 0) for differences (S, Q), seeds and queries both random.

    $$t = \bar x \Big/ \sqrt{(MS_s + \max(MS_q - MS_{sq}, 0)) / SQ}$$

    with the mean squares of seeds, queries and residual and Satterthwaite's degrees of freedom
    (Judd, Westfall and Kenny, 2012). Where the seeds agree it is the t-test over queries, where the
    queries agree the t-test over seeds. It is never surer than the t-test over queries of the
    seeds' means (section 4.2.1), which speaks of these S checkpoints only: by chance, seeds can
    agree better than their noise allows, which would make all seeds surer than these. A bootstrap
    of five seeds rejects true nulls too often where seeds differ more than queries. There this
    test's degrees of freedom are a little liberal too: in simulations 6% of true nulls have
    p < 0.05 and 0.6% have p < 0.0016.
    """
    S, Q = differences.shape
    mean = differences.mean()
    seeds = differences.mean(1)  # (S,)
    queries = differences.mean(0)  # (Q,)
    residual = differences - seeds[:, None] - queries + mean  # (S, Q)
    df = np.array([S - 1, Q - 1, (S - 1) * (Q - 1)])
    sums = [
        Q * ((seeds - mean) ** 2).sum(),
        S * ((queries - mean) ** 2).sum(),
        (residual**2).sum(),
    ]
    squares = np.array(sums) / df  # (3,): mean squares of seeds, queries, residual
    of_queries = squares[1]
    squares[1:] *= squares[1] >= squares[2]
    error = squares @ [1, 1, -1]
    if error < 1e-12:  # one difference everywhere
        return (0.5, 0.5) if abs(mean) < 1e-9 else (float(mean < 0), float(mean > 0))
    crossed = (error, error**2 / (squares**2 / df).sum())
    over_queries = (of_queries, Q - 1)
    tests = [
        (mean / np.sqrt(square / (S * Q)), freedom)
        for square, freedom in (crossed, over_queries)
        if square > 1e-12
    ]
    p_values = [(float(student_t.sf(*test)), float(student_t.cdf(*test))) for test in tests]
    return max(p_values, key=min)  # the less sure


def holm(p: np.ndarray) -> np.ndarray:
    r"""Holm's correction of m p-values (m,).

    $$\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$$
    """
    order = np.argsort(p)
    scaled = np.minimum(1.0, np.arange(len(p), 0, -1) * p[order])
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected


def resample_queries(values: np.ndarray, draws: int, seed: int = 0, chunk: int = 250) -> np.ndarray:
    """Means (draws, R) of values (R, Q) over Q queries drawn with replacement, the same for all R.

    chunk: draws that are in memory at a time.
    """
    generator = np.random.default_rng((seed, 0))
    queries = values.shape[1]
    means = []
    for start in range(0, draws, chunk):
        n = min(chunk, draws - start)
        drawn = generator.integers(queries, size=(n, queries))  # (n, Q)
        cells = drawn + queries * np.arange(n)[:, None]  # (n, Q)
        counts = np.bincount(cells.ravel(), minlength=n * queries)  # (n * Q,)
        counts = counts.reshape(n, queries).astype(float)  # (n, Q): how often each was drawn
        means.append(counts @ values.T / queries)  # (n, R)
    return np.concatenate(means)
