"""Which queries a gain comes from, against sums by hand."""

import numpy as np
import pandas as pd
import pytest

from leadkit.results import strata
from leadkit.results.blocks import BLOCKS
from leadkit.results.generators import INLINE
from leadkit.results.statistics import crossed

FIRST, SECOND = "CB LEAD", "CB RD"
#                     ahead, ahead, level, level, level, behind, behind
TEACHER = np.array([90.0, 50.0, 60.0, 0.0, 30.0, 20.0, 0.0])
ALONE = np.array([20.0, 30.0, 50.0, 0.0, 40.0, 50.0, 99.0])
GAIN = np.array([8.0, 4.0, 1.0, 0.0, -1.0, -3.0, -5.0])  # of the first over the second


@pytest.fixture
def points():
    """Two seeds; noise that is gone in their mean."""
    found = {}
    for seed, noise in enumerate((1.0, -1.0)):
        tilt = noise * np.array([1, -1, 1, -1, 1, -1, 1])
        found[strata.TEACHER, seed] = TEACHER + 15 * tilt
        found[strata.ALONE, seed] = ALONE + 14 * tilt
        found[SECOND, seed] = 30 + 5 * tilt
        found[FIRST, seed] = 30 + 5 * tilt + GAIN + noise
    return found


class Sources:
    """A source whose folders all hold the same points, but "b" lacks the first experiment."""

    def __init__(self, points):
        self.points = points
        self.records = {name: [] for name, _ in points}

    def folder(self, scale):
        there = {key: each for key, each in self.points.items() if scale != "b" or key[0] != FIRST}
        return Sources(there)

    def parse(self, text):
        scale, _, what = text.partition(": ")
        return self.folder(scale), what


def test_shares_and_gains_are_those_by_hand(points):
    assert np.allclose(strata.lead(points), TEACHER - ALONE)
    found = strata.gains(points, FIRST, SECOND)
    assert list(found.index) == ["teacher behind", "level", "teacher ahead", "all"]
    assert np.allclose(found["share"], [2 / 7, 3 / 7, 2 / 7, 1])
    assert np.allclose(found["difference"], [-4, 0, 6, GAIN.mean()])


def test_a_stratum_has_the_ledgers_interval_of_its_queries(points):
    found = strata.gains(points, FIRST, SECOND).loc["level"]
    per_query = np.stack([points[FIRST, seed] - points[SECOND, seed] for seed in (0, 1)])
    by_hand = crossed(per_query[:, 2:5])
    assert np.allclose(
        found[["low", "high"]].astype(float), [by_hand.low(0.025), by_hand.high(0.025)]
    )
    assert found["seeds"] == 2


def test_other_shares_change_the_sum_and_nothing_else(points):
    found = strata.gains(points, FIRST, SECOND)
    assert strata.with_shares(found, found) == pytest.approx(GAIN.mean())
    other = pd.DataFrame({"share": [0.1, 0.3, 0.6]}, index=list(strata.STRATA))
    assert strata.with_shares(found, other) == pytest.approx(0.1 * -4 + 0.6 * 6)


def test_a_stratum_of_one_query_has_no_number(points):
    few = {key: values[:6] for key, values in points.items()}
    found = strata.gains(few, FIRST, SECOND)
    assert np.isnan(found.loc["teacher behind", ["difference", "low", "high"]].astype(float)).all()
    assert found.loc["teacher ahead", "difference"] == pytest.approx(6)
    assert strata.texts(found)["teacher behind"] == ""


def test_experiments_without_a_common_seed_are_refused(points):
    del points[FIRST, 0], points[SECOND, 1]
    with pytest.raises(ValueError, match="CB LEAD and CB RD share no seed"):
        strata.gains(points, FIRST, SECOND)


def test_what_made_the_strata_is_not_judged_by_them(points):
    """The queries on which a model was unlucky are those on which another is ahead of it."""
    with pytest.raises(ValueError, match="made the strata, so their gain is biased"):
        strata.gains(points, FIRST, strata.ALONE)


def test_pages_quote_them(points):
    source = Sources(points)
    asked = {
        "stratum": ("evening: CB LEAD - CB RD / teacher ahead", "+6.00"),
        "share": ("evening: level", "43"),
        "with-shares": ("evening evening-squad: CB LEAD - CB RD", "+0.57"),
    }
    for name, (text, number) in asked.items():
        assert INLINE[name](source, text, "") == number
    with pytest.raises(ValueError, match="stratum 'ahead' is unknown: use one of teacher behind,"):
        INLINE["stratum"](source, "evening: CB LEAD - CB RD / ahead", "")
    lines = BLOCKS["strata"](source, "a b: CB LEAD - CB RD => gain", None).splitlines()
    assert lines[0] == "|  | queries, % | gain |"
    assert lines[4].startswith("| a, teacher ahead | 29 | 6.00 (")
    assert lines[8] == "| b, teacher ahead | 29 |  |"
    with pytest.raises(ValueError, match="none of a, b has records of both in 'CB LAED - CB RD'"):
        BLOCKS["strata"](source, "a b: CB LEAD - CB RD; CB LAED - CB RD", None)
