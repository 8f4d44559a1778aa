"""The map of conditions: its numbers are those of the records, and what was not run is left out."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from leadkit.experiments.conditions import ROWS, SHALLOW, SINGLE, TEACHERS, point
from leadkit.lessons import figures
from leadkit.results import blocks, condition_map
from leadkit.results.evidence import Evidence
from leadkit.results.statistics import crossed

RUN = {
    point(150, SHALLOW, 1.0): (40.0, 25.0, 26.0, 26.5),  # teacher, alone, RD, frozen LEAD
    point(600, SHALLOW, 1.0): (40.0, 27.0, 29.0, 31.0),
    point(600, "CB teacher", 10.0): (42.0, 27.0, 29.5, 29.0),
    SINGLE: (40.0, 26.0, 26.5, 27.5),
}


@pytest.fixture
def records():
    random = np.random.default_rng(0)
    made = {}
    for condition, means in RUN.items():
        for row, mean in zip(ROWS, means, strict=True):
            name = f"{row}, {condition}"
            made[name] = [
                {
                    "experiment": name,
                    "seed": seed,
                    "collection": "toy",
                    "fingerprint": "f",
                    "split": "dev",
                    "per_query": {"RR@10": (mean + random.normal(0, 5, 40)) / 100},
                }
                for seed in range(2)
            ]
    return made


def points(records, name):
    return np.stack([100 * row["per_query"]["RR@10"] for row in records[name]])


def test_each_effect_is_the_difference_of_its_two_rows_with_the_crossed_interval(records):
    measured = condition_map.effects(Evidence(records))
    assert list(measured.index.unique("condition")) == list(RUN)
    pairs = {
        "teacher - student, as long": (0, 1),
        "RD - student, as long": (2, 1),
        "frozen LEAD - RD": (3, 2),
    }
    for condition in RUN:
        for effect, (first, second) in pairs.items():
            a, b = (points(records, f"{ROWS[i]}, {condition}") for i in (first, second))
            estimate = crossed(a - b)
            line = measured.loc[(condition, effect)]
            assert line["difference"] == pytest.approx((a - b).mean())
            assert line["low"] == pytest.approx(estimate.low(0.025))
            assert line["high"] == pytest.approx(estimate.high(0.025))
            assert line["seeds"] == 2


def test_a_point_without_all_its_rows_lacks_the_effects_that_need_them(records):
    del records[f"RD, {SINGLE}"]
    measured = condition_map.effects(Evidence(records))
    assert list(measured.loc[SINGLE].index) == ["teacher - student, as long"]
    text = condition_map.texts(measured)
    assert text.loc[SINGLE].isna().tolist() == [False, True, True]


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


def test_the_figure_draws_the_points_and_names_each_line_by_its_teachers_lead(records):
    measured = condition_map.effects(Evidence(records))
    panels = figures.condition_map(measured)
    drawn = {}
    for panel in panels:
        for container in panel.containers:
            line = container.lines[0]
            drawn[panel.get_title()] = list(line.get_xdata()), list(line.get_ydata())
    effect = measured["difference"].xs("frozen LEAD - RD", level="effect")
    assert drawn == {
        "tau_l = 1": ([150, 600], [effect[name] for name in list(RUN)[:2]]),
        "tau_l = 10": ([600], [effect[point(600, "CB teacher", 10.0)]]),
    }
    lead = measured["difference"].xs("teacher - student, as long", level="effect")
    texts = [text.get_text().strip() for panel in panels for text in panel.texts]
    assert texts == [
        f"{lead[point(600, SHALLOW, 1.0)]:+.0f}",
        f"{lead[point(600, 'CB teacher', 10.0)]:+.0f}",
    ]
    colours = {to_rgb(panel.texts[0].get_color()) for panel in panels if panel.texts}
    assert len(colours) == 2 <= len(TEACHERS)
    plt.close("all")
