"""Measures against values by hand."""

from math import log2

import numpy as np
import pytest
from scipy.stats import ttest_rel
from toys import write_beir

from leadkit.data.collections import load
from leadkit.results.statistics import paired_t_test
from leadkit.retrieval.measures import MEASURES, per_query
from leadkit.retrieval.runs import Run

QRELS = {
    "q1": {"p0": 1},
    "q2": {"p1": 1, "p2": 2, "p3": 1},
    "q3": {"p4": 1, "p5": 0},
    "q4": {"p19": 1},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    passages = {f"p{i}": f"text {i}" for i in range(20)}
    name = write_beir(
        tmp_path_factory.mktemp("c") / "beir",
        passages,
        dict.fromkeys(QRELS, "text"),
        {"test": QRELS},
    )
    return load(name)


def values(collection, rows):
    width = max(map(len, rows))
    rows = np.array([row + [-1] * (width - len(row)) for row in rows])
    return per_query(Run(rows, np.zeros(rows.shape)), collection, "test")


def test_values_by_hand(collection):
    got = values(collection, [[9, 8, 0], [2, 9, 1, 8, 7], [5, 4], [*range(11), 19]])
    assert list(got) == list(MEASURES) == ["RR@10", "AP@1000", "nDCG@10", "R@100", "R@1000"]
    np.testing.assert_allclose(got["RR@10"], [1 / 3, 1, 1 / 2, 0])  # q4's passage stands 12th
    np.testing.assert_allclose(got["AP@1000"], [1 / 3, (1 / 1 + 2 / 3) / 3, 1 / 2, 1 / 12])
    ideal = 2 + 1 / log2(3) + 1 / log2(4)  # gains 2, 1, 1
    np.testing.assert_allclose(
        got["nDCG@10"], [1 / log2(4), (2 + 1 / log2(4)) / ideal, 1 / log2(3), 0], atol=1e-6
    )
    np.testing.assert_allclose(got["R@100"], [1, 2 / 3, 1, 1])
    np.testing.assert_allclose(got["R@1000"], [1, 2 / 3, 1, 1])


def test_recall_stops_at_its_depth(tmp_path):
    passages = {f"p{i}": "text" for i in range(1200)}
    relevant = dict.fromkeys(("p99", "p100", "p999", "p1000"), 1)
    collection = load(write_beir(tmp_path / "c", passages, {"q": "x"}, {"test": {"q": relevant}}))
    got = per_query(Run(np.arange(1200)[None], np.zeros((1, 1200))), collection, "test")
    assert got["R@100"] == [1 / 4] and got["R@1000"] == [3 / 4]
    np.testing.assert_allclose(got["AP@1000"], [(1 / 100 + 2 / 101 + 3 / 1000) / 4])


def test_query_without_results_counts_zero(collection):
    got = values(collection, [[0], [], [4], []])
    for name in MEASURES:
        assert got[name].tolist()[1::2] == [0, 0]
        assert got[name][0] == got[name][2] == 1


def test_order_of_the_run_breaks_ties(collection):
    """Equal scores, in either order: the run's order is the ranking."""
    assert values(collection, [[0, 9], [9], [9], [9]])["RR@10"][0] == 1
    assert values(collection, [[9, 0], [9], [9], [9]])["RR@10"][0] == 1 / 2


def test_one_row_per_query_is_needed(collection):
    with pytest.raises(ValueError):
        values(collection, [[0], [1]])


def test_values_stand_in_the_order_of_the_split(collection):
    rows = [[0], [9], [4], [9]]
    assert values(collection, rows)["RR@10"].tolist() == [1, 0, 1, 0]
    assert list(collection.split("test")) == ["q1", "q2", "q3", "q4"]


def test_paired_t_test():
    a, b = np.array([1.0, 0.5, 0.25, 1.0]), np.array([0.5, 0.5, 0.0, 1.0])
    difference = a - b
    t = difference.mean() / (difference.std(ddof=1) / 2)
    mean, p = paired_t_test(a, b)
    assert mean == pytest.approx(0.1875) and p == pytest.approx(ttest_rel(a, b).pvalue)
    assert ttest_rel(a, b).statistic == pytest.approx(t)
    assert paired_t_test(b, a) == (pytest.approx(-0.1875), pytest.approx(p))
    assert paired_t_test(a, a) == (0.0, 1.0)
