"""Tests and intervals against hand computations, scipy and simulation."""

import numpy as np
import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from leadkit.results.statistics import crossed, holm

RNG = np.random.default_rng


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1, 1])
    assert holm(np.array([])).size == 0


def test_crossed_test_by_hand():
    # mean squares 6 (seeds), 6 (queries), 2 (residual); mean 3, SQ = 6
    got = crossed(np.array([[1.0, 2, 3], [3, 2, 7]]))
    # Satterthwaite's degrees of freedom are 1.79; one less is below the one of the seeds.
    assert (got.mean, got.error, got.df) == pytest.approx((3, np.sqrt((6 + 6 - 2) / 6), 1))
    # Mean squares .25, .25, 2.25: queries differ less than their noise, so only the seeds' mean
    # square, taken for half the noise's, and its one degree of freedom count.
    got = crossed(np.array([[1.0, 0], [0, 2]]))
    assert (got.mean, got.error, got.df) == pytest.approx((0.75, np.sqrt(2.25 / 2 / 4), 1))


def test_variance_components_by_hand():
    """Four seeds, three queries, each effect known: mean squares 10, 52, 1 with 3, 2, 6 degrees."""
    of_seeds = np.array([[1.0], [-1], [2], [-2]]) * np.sqrt(10 / 10)  # sum of squares 10, times 3
    of_queries = np.array([[2.0, 0, -2]]) * np.sqrt(13 / 4)  # sum of squares 26, times 4
    noise = np.array([[1.0, -1, 0], [-1, 1, 0], [1, -1, 0], [-1, 1, 0]]) * np.sqrt(6 / 8)
    got = crossed(5 + of_seeds + of_queries + noise)
    square = 10 + 52 - 1
    df = square**2 / (10**2 / 3 + 52**2 / 2 + 1**2 / 6) - 1
    assert got.mean == pytest.approx(5)
    assert got.error == pytest.approx(np.sqrt(square / 12))
    assert got.df == pytest.approx(max(df, 2)) and 1 < df < 2
    fewer = crossed(5 + of_seeds + of_queries / 4 + noise)  # the queries' mean square is 3.25
    df = 12.25**2 / (10**2 / 3 + 3.25**2 / 2 + 1**2 / 6) - 1
    assert fewer.df == pytest.approx(df) and df > 2.5


def test_where_nothing_varies():
    for mean, above in ((0.0, 0.5), (1.0, 0.0), (-1.0, 1.0)):
        got = crossed(np.full((5, 4), mean))
        assert (got.p_above(), got.p_below()) == (above, 1 - above)
        assert got.low(0.025) == got.high(0.025) == mean


def test_limits_of_the_crossed_test():
    """Where queries agree it is the t-test over seeds, with one seed that over queries."""
    seeds = RNG(1).normal(0.5, 1, (5, 1))
    over_seeds = ttest_1samp(seeds[:, 0], 0, alternative="greater")
    assert crossed(np.repeat(seeds, 40, axis=1)).p_above() == pytest.approx(over_seeds.pvalue)
    one = RNG(0).normal(0.3, 1, (1, 40))
    over_queries = ttest_1samp(one[0], 0)
    got = crossed(one)
    assert 2 * got.p_above() == pytest.approx(over_queries.pvalue)
    interval = over_queries.confidence_interval()
    assert (got.low(0.025), got.high(0.025)) == pytest.approx((interval.low, interval.high))
    # Where seeds agree, queries are all that is left.
    queries = RNG(2).normal(0.3, 1, (1, 400))
    alike = crossed(np.repeat(queries, 5, axis=0)).error
    assert alike == pytest.approx(queries.std(ddof=1) / np.sqrt(400))


# The variance of seeds, of queries and of noise, as parts of their mean squares.
REGIMES = {
    "queries dominate": (0.0, 2.0, 1.0),
    "seeds dominate": (40.0, 1.0, 1.0),
    "both": (3.0, 3.0, 1.0),
}


@pytest.mark.parametrize("regime", REGIMES)
def test_intervals_of_five_seeds_cover_the_truth(regime):
    """As often as 95% says. The full simulation: tried.jsonl, "coverage"; here 3,000 times."""
    rng, Q, times = RNG(0), 200, 3000
    seed_square, query_square, noise = REGIMES[regime]
    covered = 0
    for _ in range(times):
        of_seeds = rng.normal(0, np.sqrt(seed_square / Q), (5, 1))
        of_queries = rng.normal(0, np.sqrt(query_square / 5), (1, Q))
        got = crossed(2 + of_seeds + of_queries + rng.normal(0, np.sqrt(noise), (5, Q)))
        covered += got.low(0.025) < 2 < got.high(0.025)
    # The simulation's standard error is 0.4%. A test over queries alone covers far less where seeds
    # dominate; one that adds the noise twice, as a bootstrap does, covers 98% where queries do.
    assert 0.935 < covered / times < 0.965


def test_seeds_that_agree_by_chance_are_not_taken_for_certain():
    """True nulls have p < 0.005 about as often as that, where noise is all that there is."""
    rng, times = RNG(1), 4000
    nulls = [crossed(rng.normal(size=(5, 60))) for _ in range(times)]
    p = np.array([2 * min(null.p_above(), null.p_below()) for null in nulls])
    assert (p < 0.005).mean() < 0.005 and (p < 0.05).mean() < 0.05


def test_power_at_the_smallest_visible_effect():
    """80% of experiments whose true difference it is are significant, at any level."""
    rng, alpha, df = RNG(0), 0.01, 4
    unit = crossed(np.repeat([[-2.0], [-1], [0], [1], [2]], 8, axis=1))
    assert unit.df == df
    shift = unit.visible(alpha) / unit.error
    t = (rng.normal(shift, 1, 40_000)) / np.sqrt(rng.chisquare(df, 40_000) / df)
    assert np.mean(t > student_t.isf(alpha, df)) == pytest.approx(0.8, abs=0.01)
    assert unit.visible(0.001) > unit.visible(0.01)
