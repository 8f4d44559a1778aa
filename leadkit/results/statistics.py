"""Tests and intervals. S seeds, Q queries; both seeds and queries are chance."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, ttest_rel
from scipy.stats import t as student_t

POWER = 0.8  # with which the smallest visible effect is seen


def paired_t_test(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean of a - b, two-sided p) over the same queries (Q,); p is 1 where the two never differ.

    The paper's test (section 4.2.1).
    """
    if np.array_equal(a, b):
        return 0.0, 1.0
    return float(np.mean(a - b)), float(ttest_rel(a, b).pvalue)


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and degrees of freedom: p-values and bounds of one t-test.

    `p_above(value) <= alpha` exactly where `low(alpha) >= value`, and the same for `p_below` and
    `high`: the interval is the test, inverted.
    """

    mean: float
    error: float
    df: float

    def p_above(self, value: float = 0.0) -> float:
        """One-sided p of "the mean is above this value"."""
        return float(student_t.sf(self._t(value), self.df))

    def p_below(self, value: float = 0.0) -> float:
        """One-sided p of "the mean is below this value"."""
        return float(student_t.cdf(self._t(value), self.df))

    def low(self, alpha: float) -> float:
        """Lower bound with one-sided error alpha."""
        return self.mean - self._critical(alpha) * self.error

    def high(self, alpha: float) -> float:
        """Upper bound with one-sided error alpha."""
        return self.mean + self._critical(alpha) * self.error

    def visible(self, alpha: float) -> float:
        """The true mean that a test with one-sided error alpha finds in 80% of experiments."""
        critical = self._critical(alpha)

        def missing_power(shift: float) -> float:
            return float(nct.sf(critical, self.df, shift)) - POWER

        return self.error * brentq(missing_power, 0.0, 3 * critical + 3)

    def _t(self, value: float) -> float:
        distance = self.mean - value
        if self.error > 0:
            return distance / self.error
        return float(np.sign(distance)) * np.inf if distance else 0.0

    def _critical(self, alpha: float) -> float:
        return float(student_t.isf(alpha, self.df))


def crossed(differences: np.ndarray) -> Estimate:
    r"""The mean of differences (S, Q), seeds and queries both random (Judd, Westfall, Kenny, 2012).

    Every seed meets every query: $x_{sq} = \mu + a_s + b_q + e_{sq}$. With the mean squares of
    seeds, queries and residual, the squared standard error is

    $$V = (MS_s + \max(MS_q - MS_{sq}, 0)) / SQ$$

    where $MS_s$ is taken for at least $MS_{sq} / 2$: by chance, few seeds can agree better than
    their noise allows. The degrees of freedom are Satterthwaite's minus one, at least those of the
    seeds. Simulated tables of five seeds chose both rules (`bench/coverage.py`).
    One seed: the t-test over its queries, which says nothing about other seeds.
    """
    S, Q = differences.shape
    mean = float(differences.mean())
    queries = differences.mean(0)  # (Q,)
    if S == 1:
        return Estimate(mean, float(queries.std(ddof=1)) / np.sqrt(Q), Q - 1)
    seeds = differences.mean(1)  # (S,)
    residual = differences - seeds[:, None] - queries + mean  # (S, Q)
    f_seeds = S - 1
    f_queries = Q - 1
    f_residual = f_seeds * f_queries
    ms_residual = (residual**2).sum() / f_residual
    ms_queries = S * ((queries - mean) ** 2).sum() / f_queries
    ms_seeds = Q * ((seeds - mean) ** 2).sum() / f_seeds
    ms_seeds = max(ms_seeds, ms_residual / 2)
    if ms_queries <= ms_residual:  # queries differ no more than noise does
        return Estimate(mean, _root(ms_seeds / (S * Q)), f_seeds)
    square = ms_seeds + ms_queries - ms_residual
    # \sum_i MS_i^2 / f_i
    spread = ms_seeds**2 / f_seeds + ms_queries**2 / f_queries + ms_residual**2 / f_residual
    df = max(square**2 / spread - 1, min(f_seeds, f_queries))
    return Estimate(mean, _root(square / (S * Q)), df)


def _root(square: float) -> float:
    """Its square root, 0 for what rounding has left of 0."""
    return float(np.sqrt(square)) if square > 1e-16 else 0.0


def holm(p: np.ndarray) -> np.ndarray:
    r"""Holm's correction of m p-values (m,).

    $$\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})$$
    """
    order = np.argsort(p)
    scaled = np.minimum(1.0, np.arange(len(p), 0, -1) * p[order])
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected
