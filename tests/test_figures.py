"""The figures: what they draw is what the numbers say, and every point can be read."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from leadkit.lessons import figures

ROWS = {  # cost, value, low, high: three points on one spot, others near each other
    "student alone": (0, 22.8, 21.0, 24.7),
    "FD": (150, 21.9, 20.1, 23.6),
    "RD": (150, 23.8, 22.0, 25.6),
    "again": (150, 23.8, 22.0, 25.6),
    "LEAD": (300, 23.6, 21.8, 25.5),
    "once more": (150, 23.8, 22.0, 25.6),
    "a method whose name is as long as this": (600, 23.6, 21.8, 25.5),
    "PROD": (650, 24.1, 22.0, 26.0),
    "last": (700, 24.0, 22.5, 25.0),
}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def table():
    return pd.DataFrame(ROWS, ["cost", "value", "low", "high"]).T


def test_each_row_is_a_point_with_its_interval_and_its_name(table):
    axes = figures.against_cost(table, "Quality and cost", "teacher forward passes")
    assert {text.get_text(): tuple(text.xy) for text in axes.texts} == {
        name: row[:2] for name, row in ROWS.items()
    }
    drawn = {}
    for container in axes.containers:
        points, _, (bar,) = container.lines
        ((low, high),) = ([y for _, y in segment] for segment in bar.get_segments())
        drawn.setdefault(
            (points.get_xdata()[0], points.get_ydata()[0]),
            (pytest.approx(low), pytest.approx(high)),
        )
    assert drawn == {row[:2]: row[2:] for row in ROWS.values()}
    texts = axes.get_title(), axes.get_xlabel(), axes.get_ylabel()
    assert texts == ("Quality and cost", "teacher forward passes", "MRR@10, percent")
    assert (
        figures.against_cost(table, "", "seconds", "difference, points").get_ylabel()
        == "difference, points"
    )


def test_no_label_hides_another_and_they_stand_in_the_order_of_quality(table):
    axes = figures.against_cost(table, "", "seconds", axes=plt.subplots(figsize=(8, 4))[1])
    axes.figure.canvas.draw()
    boxes = {
        text.get_text(): Text.get_window_extent(text) for text in axes.texts
    }  # an annotation's own would have its line too
    names = sorted(ROWS, key=lambda name: ROWS[name][1])
    for lower, upper in zip(names, names[1:], strict=False):
        assert boxes[lower].y1 < boxes[upper].y0
    assert boxes.keys() == ROWS.keys() and all(box.x0 > axes.bbox.x1 for box in boxes.values())


def test_the_table_is_read_by_its_names_and_left_as_it_was(table):
    before = table.copy()
    shuffled = figures.against_cost(
        table[["high", "cost", "low", "value"]].sample(frac=1, random_state=0), "", "s"
    )
    assert {text.get_text(): tuple(text.xy) for text in shuffled.texts} == {
        name: row[:2] for name, row in ROWS.items()
    }
    figures.against_cost(table, "", "s")
    pd.testing.assert_frame_equal(table, before)
    axes = plt.subplots()[1]
    assert figures.against_cost(table, "", "s", axes=axes) is axes


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"low": 24.0},
            "the row of RD is .*'low': 24.0.*: its cost must be a number, its value one from low "
            "to high",
        ),
        ({"high": 23.0}, "the row of RD is"),
        ({"cost": float("nan")}, "the row of RD is .*'cost': nan"),
        ({"value": float("nan")}, "the row of RD is"),
    ],
)
def test_row_that_cannot_be(table, change, message):
    for column, value in change.items():
        table.loc["RD", column] = value
    with pytest.raises(ValueError, match=message):
        figures.against_cost(table, "", "s")


def test_column_that_is_missing(table):
    with pytest.raises(
        ValueError,
        match="the table lacks cost, low: it must have the columns cost, value, low, high",
    ):
        figures.against_cost(table[["value", "high"]], "", "s")


# --- maps


def words(axes) -> dict[tuple[float, float], str]:
    """Where each text of the axes stands."""
    return {text.get_position(): text.get_text() for text in axes.texts}


def frames(axes) -> set[tuple[int, int]]:
    """(row, column) of the framed cells."""
    (patches,) = (c for c in axes.collections if isinstance(c, PatchCollection))
    corners = {tuple(path.vertices.min(0)) for path in patches.get_paths()}
    assert all(np.ptp(path.vertices, axis=0).tolist() == [1, 1] for path in patches.get_paths())
    return {(int(y), int(x)) for x, y in corners}


def test_a_map_has_each_value_in_its_cell_row_1_on_top():
    axes = figures.heat(np.array([[0.04, 1, 2], [3, 4, 5.06]]), "t", "x", "y", digits=1)
    assert words(axes) == {
        (0.5, 0.5): "0.0",
        (1.5, 0.5): "1.0",
        (2.5, 0.5): "2.0",
        (0.5, 1.5): "3.0",
        (1.5, 1.5): "4.0",
        (2.5, 1.5): "5.1",
    }
    assert axes.yaxis_inverted() and not axes.xaxis_inverted()
    ticks = [
        [
            (tick.get_text(), at)
            for tick, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        ]
        for axis in (axes.xaxis, axes.yaxis)
    ]
    assert ticks == [[("1", 0.5), ("2", 1.5), ("3", 2.5)], [("1", 0.5), ("2", 1.5)]]
    assert axes.collections[0].get_clim() == (0.04, 5.06) and len(axes.figure.axes) == 1


def test_ink_can_be_read_on_its_colour():
    axes = figures.heat(np.linspace(0, 1, 21)[None], "", "", "")
    axes.figure.canvas.draw()
    for text, ground in zip(axes.texts, axes.collections[0].get_facecolors(), strict=True):
        light, dark = sorted(
            (luminance(ground[:3]), luminance(to_rgb(text.get_color()))), reverse=True
        )
        assert (light + 0.05) / (dark + 0.05) > 2.5, text.get_text()


def luminance(colour) -> float:
    """Relative, as the WCAG has it."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_top_keeps_the_colours_where_they_are():
    one, half = (
        figures.heat(np.array([[0.5, 1.0]]) * f, "", "", "", top=1.0).collections[0]
        for f in (1, 0.5)
    )
    assert one.get_clim() == half.get_clim() == (0, 1)


def test_framed_cells():
    axes = figures.heat(np.zeros((3, 4)), "", "", "")
    figures.frame(axes, [(2, 0), (1, 3)])
    assert frames(axes) == {(2, 0), (1, 3)}


def test_token_map_against_a_slow_loop():
    products = np.random.default_rng(0).normal(size=(5, 9))
    total, winners = 0.0, set()
    for x in range(5):
        best = 0
        for y in range(9):
            if products[x, y] > products[x, best]:
                best = y
        winners.add((x, best))
        total += products[x, best]
    axes = figures.token_map(products, list("abcde"), [*"pqrstuv", "$x$", "##y"], "a $pair$")
    axes.figure.canvas.draw()
    assert frames(axes) == winners and axes.get_title() == f"a $pair$: MaxSim {total:.2f}"
    assert [t.get_text() for t in axes.get_xticklabels()][-2:] == ["$x$", "##y"]
    assert not any(
        t.get_parse_math() for t in (*axes.get_xticklabels(), axes.title)
    )  # dollars of a text are no formula


# --- rankings side by side

RANKINGS = {
    "BM25": ["a", "b", "c"],
    "RD": ["b", "d", "a"],
    "LEAD": [],
    "teacher": ["d", "b", "e"],
    "again": ["e", "b", "x"],
}


def test_lines_join_the_places_of_the_same_passage_in_neighbouring_columns():
    axes = figures.rank_lines(RANKINGS, "a $query$")
    joined = {
        tuple(map(tuple, np.round(line, 2).tolist())) for line in axes.collections[0].get_segments()
    }
    assert joined == {
        ((0.38, 1), (0.62, 3)),
        ((0.38, 2), (0.62, 1)),
        ((3.38, 3), (3.62, 1)),
        ((3.38, 2), (3.62, 2)),
    }  # a, b; e, b
    assert words(axes) == {
        (column, rank): passage
        for column, ids in enumerate(RANKINGS.values())
        for rank, passage in enumerate(ids, start=1)
    }
    assert [t.get_text() for t in axes.get_xticklabels()] == list(
        RANKINGS
    ) and axes.yaxis_inverted()
    assert not axes.title.get_parse_math() and not any(text.get_parse_math() for text in axes.texts)


def test_relevant_and_chosen_passages_stand_out():
    axes = figures.rank_lines(RANKINGS, "", {"a"}, "b")
    found = {
        text.get_text(): (to_rgb(text.get_color()), text.get_fontweight()) for text in axes.texts
    }
    dark = to_rgb("0.2")
    assert (found["★ a"], found["b"], found["d"]) == (
        (figures.TEACHER, "normal"),
        (dark, "bold"),
        (dark, "normal"),
    )
    assert [text.get_text() for text in axes.texts].count("★ a") == 2
    assert axes.collections[0].get_linewidths() == [
        2.5,
        2.5,
        2.5,
        1,
    ]  # a, b of BM25; b, e of the teacher


def test_long_names_keep_their_end():
    name = "package.module.Class.a_method_name"
    texts = figures.rank_lines({"one": [name, "b" * 25]}, "").texts
    assert [t.get_text() for t in texts] == ["…" + name[-24:], "b" * 25]
    assert len(figures.rank_lines({"none": []}, "").texts) == 0


# --- distributions


def test_bars_of_a_candidate_stand_side_by_side_as_high_as_its_probabilities():
    rows = {
        "student": [0.5, 0.3, 0.2],
        "teacher": np.array([0.1, 0.2, 0.7]),
        "mean": [0.3, 0.25, 0.45],
    }
    axes = figures.distributions(rows, "t", ["★", "b", "c"])
    assert {c.get_label(): [bar.get_height() for bar in c] for c in axes.containers} == {
        k: list(v) for k, v in rows.items()
    }
    bars = sorted(
        (bar for container in axes.containers for bar in container), key=lambda bar: bar.get_x()
    )
    assert [bar.get_height() for bar in bars] == [rows[name][c] for c in range(3) for name in rows]
    assert all(
        left.get_x() + left.get_width() <= right.get_x() + 1e-9
        for left, right in zip(bars, bars[1:], strict=False)
    )
    assert ([t.get_text() for t in axes.get_xticklabels()], axes.get_xticks().tolist()) == (
        ["★", "b", "c"],
        [0, 1, 2],
    )
    colours = [container[0].get_facecolor()[:3] for container in axes.containers]
    assert colours[:2] == [figures.STUDENT, figures.TEACHER] and len(set(colours)) == 3
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(rows)
    assert [t.get_text() for t in figures.distributions(rows, "").get_xticklabels()] == [
        "1",
        "2",
        "3",
    ]
