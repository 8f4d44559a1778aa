"""A run beside the committed records: inside, outside, or something else."""

import copy
import json
import re

import numpy as np
import pytest
from scipy import stats

from leadkit import paths
from leadkit.experiments.rows import experiment
from leadkit.results import records
from leadkit.results.expected import expected_and_got, interval, log_line

ROW = "LEAD"
COMMITTED = records.read(paths.RESULTS / "classroom")[experiment(ROW, "CB")]
VALUES = np.array([100 * record["measures"]["RR@10"] for record in COMMITTED])


def verdict(value=None, **changes):
    """The verdict on a committed record with another value, in percent, and other fields."""
    record = copy.deepcopy(COMMITTED[0]) | changes
    if value is not None:
        record["measures"]["RR@10"] = value / 100
    return expected_and_got({ROW: record}, "classroom").loc[ROW]


def test_the_interval_covers_one_more_seed():
    """As often as it says, for seeds that are drawn from one normal distribution."""
    draws = np.random.default_rng(0).normal(20, 1, (2000, 6))
    inside = [low <= row[5] <= high for row in draws for low, high in [interval(row[:5])]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    half = stats.t.ppf(0.975, 4) * VALUES.std(ddof=1) * np.sqrt(1.2)
    assert interval(VALUES) == (
        round(VALUES.mean() - half, 2),
        round(VALUES.mean() + half, 2),
    )


def test_inside_and_outside():
    low, high = interval(VALUES)
    line = verdict()
    assert line["committed"] == pytest.approx(VALUES.mean())
    assert (line["seeds"], line["this run"]) == (5, pytest.approx(VALUES[0]))
    assert [verdict(value)[""] for value in (low, high)] == ["inside"] * 2
    outside = f"outside {low:.2f} to {high:.2f}"
    assert [verdict(value)[""] for value in (low - 0.02, high + 0.02)] == [outside] * 2


def test_what_is_no_reproduction_is_not_judged_by_its_value():
    assert verdict(fingerprint="other")[""] == "another collection (fingerprint other)"
    assert verdict(split="dev")[""] == "another collection (split dev)"
    text = json.dumps(COMMITTED[0]["stage"])
    stage = json.loads(text.replace('"bf16": true', '"bf16": false'))
    assert verdict(0, stage=stage)[""] == "another precision (float32)"
    stage["depth"] = 7
    assert verdict(0, stage=stage)[""] == "other settings (depth)"


def test_a_row_that_no_seed_changes_has_one_value():
    bm25 = records.read(paths.RESULTS / "classroom")["BM25"]
    table = expected_and_got({"BM25": bm25[0]}, "classroom")
    assert (table.loc["BM25", "spread"], table.loc["BM25", ""]) == (0, "inside")
    other = copy.deepcopy(bm25[0])
    other["measures"]["RR@10"] += 0.001
    assert expected_and_got({"BM25": other}, "classroom").loc["BM25", ""].startswith("outside")


def test_what_is_not_committed():
    record = COMMITTED[0]
    assert expected_and_got({ROW: record}, "smoke").empty
    assert expected_and_got({"new": record}, "classroom").loc["new", ""] == "not committed"


def test_the_line_for_the_log():
    table = expected_and_got({ROW: COMMITTED[0]}, "classroom")
    line = log_line(table, COMMITTED[0], "classroom", 0)
    said = r"- \d{4}-\d\d-\d\d, leadkit [\d.]+, classroom, seed 0, python-docs \w{16}, CPU.*, "
    assert re.fullmatch(said + rf"bfloat16: 1 of 1 rows inside; LEAD {VALUES[0]:.2f}", line)
