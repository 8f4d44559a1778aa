"""The map of conditions: its numbers are those of the records, and what was not run is left out."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from toys import measured

from leadkit.experiments.conditions import ROWS, SHALLOW, SINGLE, TEACHERS, point
from leadkit.lessons import figures
from leadkit.results import blocks, condition_map
from leadkit.results.evidence import Evidence
from leadkit.results.statistics import crossed

RUN = {
    point(150, SHALLOW, 1.0): (40.0, 25.0, 26.2, 26.0, 26.5),  # in the order of ROWS
    point(600, SHALLOW, 1.0): (40.0, 27.0, 28.0, 29.0, 31.0),
    point(600, "CB teacher", 10.0): (42.0, 27.0, 29.1, 29.5, 29.0),
    SINGLE: (40.0, 26.0, 25.5, 26.5, 27.5),
}


@pytest.fixture
def records():
    return measured(
        {
            f"{row}, {condition}": mean
            for condition, means in RUN.items()
            for row, mean in zip(ROWS, means, strict=True)
        }
    )


def points(records, name):
    return np.stack([100 * row["per_query"]["RR@10"] for row in records[name]])


def test_each_effect_is_the_difference_of_its_two_rows_with_the_crossed_interval(records):
    table = condition_map.effects(Evidence(records))
    assert list(table.index.unique("condition")) == list(RUN)
    pairs = {
        "teacher - student, as long": (0, 1),
        "RD - student, as long": (3, 1),
        "frozen LEAD - RD": (4, 3),
        "student + smooth label - student, as long": (2, 1),
    }
    for condition in RUN:
        for effect, (first, second) in pairs.items():
            a, b = (points(records, f"{ROWS[i]}, {condition}") for i in (first, second))
            estimate = crossed(a - b)
            line = table.loc[(condition, effect)]
            assert line["difference"] == pytest.approx((a - b).mean())
            assert line["low"] == pytest.approx(estimate.low(0.025))
            assert line["high"] == pytest.approx(estimate.high(0.025))
            assert line["seeds"] == 2


def test_a_point_without_all_its_rows_lacks_the_effects_that_need_them(records):
    del records[f"RD, {SINGLE}"]
    table = condition_map.effects(Evidence(records))
    left = ["teacher - student, as long", "student + smooth label - student, as long"]
    assert list(table.loc[SINGLE].index) == left
    text = condition_map.texts(table)
    assert text.loc[SINGLE].isna().tolist() == [False, True, True, False]
    none = {"RD": records[f"RD, {list(RUN)[0]}"]}
    with pytest.raises(ValueError, match="no condition of the map was run"):
        condition_map.texts(condition_map.effects(Evidence(none)))


def test_the_block_has_a_row_per_condition_that_was_run(records):
    class Folder:
        evidence = Evidence(records)

    class Source:
        def folder(self, scale):
            return Folder

    lines = blocks.BLOCKS["conditions"](Source(), "evening-dev", Path()).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(RUN)
    first = condition_map.effects(Evidence(records)).iloc[0]
    said = f"{first['difference']:.2f} ({first['low']:.2f} to {first['high']:.2f})"
    assert said in lines[2]


def test_the_figure_draws_each_effect_over_the_lead_of_its_teacher(records):
    table = condition_map.effects(Evidence(records))
    panels = figures.condition_map({"toy": table})
    effect = table["difference"].xs("frozen LEAD - RD", level="effect")
    lead = table["difference"].xs("teacher - student, as long", level="effect")
    assert [panel.get_title() for panel in panels] == ["toy, 150 steps", "toy, 600 steps"]
    drawn = {}
    for panel in panels:
        for line in panel.containers:
            for x, y in zip(*line.lines[0].get_data(), strict=True):
                drawn[panel.get_title(), line.get_label(), y] = x
    expected = {
        ("toy, 150 steps", "tau_l = 1"): point(150, SHALLOW, 1.0),
        ("toy, 600 steps", "tau_l = 1"): point(600, SHALLOW, 1.0),
        ("toy, 600 steps", "tau_l = 10"): point(600, "CB teacher", 10.0),
    }
    for place, condition in expected.items():
        assert drawn.pop((*place, effect[condition])) == pytest.approx(lead[condition], abs=0.3)
    assert not drawn
    plt.close("all")


def test_the_teachers_of_the_figure_stand_in_the_order_of_their_leads(records):
    """Whatever their order in the code: DE, shallow CB, CB."""
    leads = dict(zip(TEACHERS, (9.0, 3.0, 6.0), strict=True))
    for teacher, lead in leads.items():
        for row, mean in zip(ROWS, (25 + lead, 25.0, 26.0, 26.0, 26.0 + lead / 10), strict=True):
            name = f"{row}, {point(150, teacher, 1.0)}"
            records[name] = [{**records[f"RD, {SINGLE}"][0], "experiment": name, "seed": 0}]
            records[name][0]["per_query"] = {"RR@10": np.full(40, mean / 100)}
    panel = figures.condition_map({"toy": condition_map.effects(Evidence(records))})[0]
    x, y = panel.containers[1].lines[0].get_data()
    assert list(x) == pytest.approx([3, 6, 9]) and list(y) == pytest.approx([0.3, 0.6, 0.9])
    plt.close("all")
