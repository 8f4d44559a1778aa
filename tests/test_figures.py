"""The figure of quality against cost: what it draws is what the table says, and every point can be read."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.text import Text

from leadkit import figures

ROWS = {  # cost, value, low, high: three points on one spot, others near each other
    "student alone": (0, 22.8, 21.0, 24.7), "FD": (150, 21.9, 20.1, 23.6), "RD": (150, 23.8, 22.0, 25.6),
    "again": (150, 23.8, 22.0, 25.6), "LEAD": (300, 23.6, 21.8, 25.5), "once more": (150, 23.8, 22.0, 25.6),
    "a method whose name is as long as this": (600, 23.6, 21.8, 25.5), "PROD": (650, 24.1, 22.0, 26.0),
    "last": (700, 24.0, 22.5, 25.0)}


@pytest.fixture
def table():
    yield pd.DataFrame(ROWS, ["cost", "value", "low", "high"]).T
    plt.close("all")


def test_each_row_is_a_point_with_its_interval_and_its_name(table):
    axes = figures.against_cost(table, "Quality and cost", "teacher forward passes")
    assert {text.get_text(): tuple(text.xy) for text in axes.texts} == {name: row[:2] for name, row in ROWS.items()}
    drawn = {}
    for container in axes.containers:
        points, _, (bar,) = container.lines
        (low, high), = ([y for _, y in segment] for segment in bar.get_segments())
        drawn.setdefault((points.get_xdata()[0], points.get_ydata()[0]), (pytest.approx(low), pytest.approx(high)))
    assert drawn == {row[:2]: row[2:] for row in ROWS.values()}
    texts = axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
    assert texts == ("Quality and cost", "teacher forward passes", "MRR@10, percent")
    assert figures.against_cost(table, "", "seconds", "difference, points").get_ylabel() == "difference, points"


def test_no_label_hides_another_and_they_stand_in_the_order_of_quality(table):
    axes = figures.against_cost(table, "", "seconds", axes=plt.subplots(figsize=(8, 4))[1])
    axes.figure.canvas.draw()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}  # an annotation's own would have its line too
    names = sorted(ROWS, key=lambda name: ROWS[name][1])
    for lower, upper in zip(names, names[1:], strict=False):
        assert boxes[lower].y1 < boxes[upper].y0
    assert boxes.keys() == ROWS.keys() and all(box.x0 > axes.bbox.x1 for box in boxes.values())


def test_the_table_is_read_by_its_names_and_left_as_it_was(table):
    before = table.copy()
    shuffled = figures.against_cost(table[["high", "cost", "low", "value"]].sample(frac=1, random_state=0), "", "s")
    assert {text.get_text(): tuple(text.xy) for text in shuffled.texts} == {name: row[:2] for name, row in ROWS.items()}
    figures.against_cost(table, "", "s")
    pd.testing.assert_frame_equal(table, before)
    axes = plt.subplots()[1]
    assert figures.against_cost(table, "", "s", axes=axes) is axes


@pytest.mark.parametrize("change, message", [
    ({"low": 24.0}, "the row of RD is .*'low': 24.0.*: its cost must be a number, its value one from low to high"),
    ({"high": 23.0}, "the row of RD is"),
    ({"cost": float("nan")}, "the row of RD is .*'cost': nan"),
    ({"value": float("nan")}, "the row of RD is"),
])
def test_row_that_cannot_be(table, change, message):
    for column, value in change.items():
        table.loc["RD", column] = value
    with pytest.raises(ValueError, match=message):
        figures.against_cost(table, "", "s")


def test_column_that_is_missing(table):
    with pytest.raises(ValueError, match="the table lacks cost, low: it must have the columns cost, value, low, high"):
        figures.against_cost(table[["value", "high"]], "", "s")
