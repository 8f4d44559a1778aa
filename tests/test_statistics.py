"""Tests and intervals against hand computations, scipy and simulation."""

import numpy as np
import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp

from leadkit.results.statistics import crossed_t_test, holm, resample_queries


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1, 1])
    assert holm(np.array([])).size == 0


def test_crossed_t_test_by_hand():
    # mean squares 6 (seeds), 6 (queries), 2 (residual); mean 3
    t = 3 / np.sqrt((6 + 6 - 2) / 6)
    df = 10**2 / (6**2 / 1 + 6**2 / 2 + 2**2 / 2)
    by_hand = (student_t.sf(t, df), student_t.cdf(t, df))
    assert crossed_t_test(np.array([[1.0, 2, 3], [3, 2, 7]])) == pytest.approx(by_hand)
    # Mean squares .25, .25, 2.25: queries differ less than their noise, so only the seeds' mean
    # square and its one degree of freedom count.
    by_hand = (student_t.sf(3, 1), student_t.cdf(3, 1))
    assert crossed_t_test(np.array([[1.0, 0], [0, 2]])) == pytest.approx(by_hand)
    assert crossed_t_test(np.zeros((5, 4))) == (0.5, 0.5)
    assert crossed_t_test(np.ones((5, 4))) == (0, 1)
    assert crossed_t_test(-np.ones((5, 4))) == (1, 0)


def one_sample(values):
    return pytest.approx(ttest_1samp(values, 0, alternative="greater").pvalue)


def test_limits_of_the_crossed_t_test():
    """Where seeds agree it is the t-test over queries; where queries agree, that over seeds."""
    queries = np.random.default_rng(0).normal(0.3, 1, (1, 40))
    seeds = np.random.default_rng(1).normal(0.5, 1, (5, 1))
    assert crossed_t_test(np.repeat(queries, 5, axis=0))[0] == one_sample(queries[0])
    assert crossed_t_test(np.repeat(seeds, 40, axis=1))[0] == one_sample(seeds[:, 0])
    # mean squares 0, 3.05, 1.02: seeds that agree add no certainty
    agreeing = np.tile([[1.0, 1, 4], [0, 3, 3]], 20) - 1.8
    assert crossed_t_test(agreeing)[0] == one_sample(agreeing.mean(0))


@pytest.mark.parametrize(
    "seed_sd, query_sd, noise", [(1.0, 0.3, 0.3), (0.1, 0.5, 0.9), (0.0, 0.3, 1.0)]
)
def test_crossed_t_test_rejects_a_true_null_as_often_as_it_says(seed_sd, query_sd, noise):
    rng = np.random.default_rng(0)
    p = []
    for _ in range(1500):
        of_seeds = rng.normal(0, seed_sd, (5, 1))
        of_queries = rng.normal(0, query_sd, (1, 60))
        x = of_seeds + of_queries + rng.normal(0, noise, (5, 60))
        p.append((2 * min(crossed_t_test(x)), ttest_1samp(x.mean(0), 0).pvalue))
    assert all(crossed >= over_queries - 1e-12 for crossed, over_queries in p)
    ours, of_seed_means = (np.array(p) < 0.05).mean(0)
    assert 0.025 < ours < 0.075
    if seed_sd == 1:
        assert of_seed_means > 0.4  # what a test of five checkpoints would call significant


def test_the_same_queries_are_drawn_for_all_records_whatever_the_chunks():
    x = np.random.default_rng(0).random((2, 30))
    values = np.stack([x[0], x[0] + 5, x[1]])
    means = resample_queries(values, 1000, seed=3)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 5)
    assert 0.5 < means[:, 0].std() / (x[0].std() / np.sqrt(30)) < 1.1
    assert np.array_equal(means, resample_queries(values, 1000, seed=3))
    assert not np.array_equal(means, resample_queries(values, 1000, seed=4))
    np.testing.assert_allclose(means[:7], resample_queries(values, 7, seed=3, chunk=250))
    assert resample_queries(x, 7, chunk=3).shape == (7, 2)
