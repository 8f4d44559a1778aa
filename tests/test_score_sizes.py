"""The size of the student's scores: each effect compares rows of one size, measured in one test."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from toys import measured

from leadkit.lessons import figures
from leadkit.results import score_sizes
from leadkit.results.evidence import Evidence
from leadkit.results.statistics import crossed

# Factor -> what follows the names of its rows; the means of ROWS.
SIZES = {
    0.5: (", scores / 2", (23.0, 23.5, 25.0, 25.5)),
    1.0: ("", (30.0, 30.7, 31.5, 31.7)),
    2.0: (", scores x 2", (31.8, 33.0, 33.1, 32.1)),
}
ROWS = ("student, as long", "CB RD", "CB LEAD", "student + smooth label")
EFFECTS = {"RD - the control": (1, 0), "LEAD - RD": (2, 1), "smoothed label - the control": (3, 0)}


@pytest.fixture
def records():
    return measured(
        {
            row + label: mean
            for label, means in SIZES.values()
            for row, mean in zip(ROWS, means, strict=True)
        }
    )


def points(records, name):
    return np.stack([100 * row["per_query"]["RR@10"] for row in records[name]])


def test_each_effect_is_that_of_two_rows_of_one_size(records):
    table = score_sizes.effects(Evidence(records))
    assert list(table.index) == [(effect, times) for effect in EFFECTS for times in SIZES]
    for effect, (first, second) in EFFECTS.items():
        for times, (label, _) in SIZES.items():
            a, b = (points(records, ROWS[i] + label) for i in (first, second))
            line, estimate = table.loc[(effect, times)], crossed(a - b)
            assert line["difference"] == pytest.approx((a - b).mean())
            assert line["low"] == pytest.approx(estimate.low(0.025))
            assert line["high"] == pytest.approx(estimate.high(0.025))
            assert line["seeds"] == 2


def test_a_size_without_its_rows_is_left_out(records):
    del records["CB LEAD, scores / 2"]
    table = score_sizes.effects(Evidence(records))
    assert list(table.loc["LEAD - RD"].index) == [1, 2]
    assert list(table.loc["RD - the control"].index) == list(SIZES)


def test_the_figure_draws_each_effect_at_its_size(records):
    table = score_sizes.effects(Evidence(records))
    (panel,) = figures.score_sizes({"toy": table})
    assert [label.get_text() for label in panel.get_xticklabels()] == ["x 0.5", "x 1", "x 2"]
    for line in panel.containers:
        x, y = line.lines[0].get_data()
        assert list(x) == pytest.approx(list(SIZES), rel=0.06)
        assert list(y) == list(table.loc[line.get_label()]["difference"])
    assert {line.get_label() for line in panel.containers} == set(EFFECTS)
    plt.close("all")


def test_an_effect_looks_the_same_in_every_panel(records):
    whole = score_sizes.effects(Evidence(records))
    less = whole.drop("RD - the control", level="effect")
    panels = figures.score_sizes({"less": less, "whole": whole})
    colours = {}
    for panel in panels:
        for line in panel.containers:
            colours.setdefault(line.get_label(), set()).add(line.lines[0].get_color())
    assert all(len(each) == 1 for each in colours.values())
    (legend,) = panels[0].figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(EFFECTS)
    plt.close("all")
