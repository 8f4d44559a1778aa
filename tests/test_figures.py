"""The figures: what they draw is what the numbers say, and every point can be read."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from leadkit.lessons import figures

ROWS = {  # cost, value, low, high
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


COSTS = {"cost": "forward passes"}


def test_each_row_has_its_interval_and_its_cost(table):
    left = figures.against_cost(table, "Quality and cost", "points", COSTS)
    names = [text.get_text() for text in left.get_yticklabels()]
    assert names == sorted(ROWS, key=lambda name: ROWS[name][0])  # the cheapest is on top
    assert left.get_ylim()[0] > left.get_ylim()[1]
    points, _, (bar,) = left.containers[0].lines
    assert points.get_xdata().tolist() == [ROWS[name][1] for name in names]
    ends = [(low, high) for (low, _), (high, _) in bar.get_segments()]
    assert ends == [pytest.approx(ROWS[name][2:]) for name in names]
    right = left.figure.axes[1]
    assert [patch.get_width() for patch in right.patches] == [ROWS[name][0] for name in names]
    labels = left.figure.get_suptitle(), left.get_xlabel(), right.get_xlabel()
    assert labels == ("Quality and cost", "points", "forward passes")


def test_a_panel_per_cost_in_the_order_of_the_first(table):
    table["seconds"] = range(len(table), 0, -1)
    left, *right = figures.against_cost(
        table, "", "", {"seconds": "s", "cost": "passes"}
    ).figure.axes
    assert [axes.get_xlabel() for axes in right] == ["s", "passes"]
    assert left.get_yticklabels()[0].get_text() == "last"


def test_the_table_is_read_by_its_names_and_left_as_it_was(table):
    before = table.copy()
    shuffled = table[["high", "cost", "low", "value"]]
    axes = figures.against_cost(shuffled, "", "", COSTS)
    assert axes.containers[0].lines[0].get_xdata().tolist() == (
        table.sort_values("cost", kind="stable")["value"].tolist()
    )
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"low": 24.0},
            "the row of RD is .*'low': 24.0.*: its costs must be numbers, its value one from low "
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
        figures.against_cost(table, "", "", COSTS)


def test_column_that_is_missing(table):
    with pytest.raises(
        ValueError,
        match="the table lacks cost, low: it must have the columns cost, value, low, high",
    ):
        figures.against_cost(table[["value", "high"]], "", "", COSTS)


# --- lines


def test_names_stand_at_the_ends_of_their_lines_and_none_hides_another():
    ends = {"first": 1.0, "the same": 1.0, "nearly": 1.02, "far": 9.0}
    columns = {name: [0.0, end] for name, end in ends.items()}
    axes = figures.label_ends(figures.lines(columns, "", "", ""))
    axes.figure.canvas.draw()
    assert axes.get_legend() is None and {text.get_text() for text in axes.texts} == set(ends)
    boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
    assert all(lower.y1 < upper.y0 for lower, upper in zip(boxes, boxes[1:], strict=False))
    for text in axes.texts:
        line = next(line for line in axes.get_lines() if line.get_label() == text.get_text())
        assert text.get_color() == line.get_color()
    far = next(text for text in axes.texts if text.get_text() == "far")
    end = axes.transAxes.inverted().transform(axes.transData.transform((2, 9.0)))
    assert far.xy[1] == pytest.approx(end[1]) and far.xy[0] > end[0]


def test_a_line_that_leaves_the_axes_is_named_where_it_was_last_inside():
    axes = figures.lines({"steep": [0, 1, 2, 40], "flat": [0, 0, 0, 0]}, "", "", "")
    axes.set_ylim(-1, 3)
    figures.label_ends(axes)
    places = {text.get_text(): tuple(text.xy) for text in axes.texts}
    assert places["steep"][1] == pytest.approx(0.75) and places["flat"][1] == pytest.approx(0.25)
    assert places["steep"][0] < places["flat"][0]


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


def test_what_is_no_number_stays_white():
    axes = figures.heat(np.array([[np.nan, 0.001], [0.0, 1.0]]), "", "", "")
    assert [text.get_text() for text in axes.texts] == ["0.00", "0.00", "1.00"]
    assert np.ma.getmaskarray(axes.collections[0].get_array()).tolist() == [
        [True, False],
        [False, False],
    ]


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


def test_a_line_follows_the_relevant_and_the_chosen_passage():
    axes = figures.rank_lines(RANKINGS, "a $query$", {"a"}, "b")
    followed = {
        tuple(map(tuple, np.round(line, 2).tolist())) for line in axes.collections[0].get_segments()
    }
    assert followed == {
        ((0.4, 1), (0.6, 3)),  # a
        ((0.4, 2), (0.6, 1)),  # b
        ((3.4, 2), (3.6, 2)),  # b
    }
    shared = {(0.5, 4): 2, (1.5, 4): 0, (2.5, 4): 0, (3.5, 4): 2}
    assert words(axes) == {
        (column, rank): f"★ {passage}" if passage == "a" else passage
        for column, ids in enumerate(RANKINGS.values())
        for rank, passage in enumerate(ids, start=1)
    } | {place: f"{number} in both" for place, number in shared.items()}
    assert [t.get_text() for t in axes.get_xticklabels()] == list(RANKINGS)
    assert axes.yaxis_inverted() and not axes.title.get_parse_math()
    bold = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {"b"}


def test_of_a_dotted_name_the_last_part_is_shown_up_to_a_length():
    texts = figures.rank_lines({"one": ["package.Class.a_$method$", "b" * 25]}, "").texts
    assert [t.get_text() for t in texts] == ["a_$method$", "b" * 20 + "…"]
    assert not any(text.get_parse_math() for text in texts)
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


def test_the_axis_of_the_primary_claims_has_room_for_each_of_them():
    claims = ["CB teacher: RD > alone (ours)", "the CB teacher after LEAD > alone (ours)"]
    for mean, limit in ((-0.4, 2), (-4.5, 6)):
        ledger = pd.DataFrame({"family": "primary", "claim": claims, "verdict": "holds"})
        measured = {"difference": [0.5, mean], "low": [0.1, mean - 0.7], "high": [0.9, mean + 0.7]}
        ledger = ledger.assign(seeds=5, **measured, paper=[1.2, np.nan])
        axes = figures.primary(ledger)
        assert axes.get_xlim() == (-limit, limit)
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == ["RD > alone: holds", "the CB teacher after LEAD > alone: holds"]


def test_the_legend_names_the_papers_diamond_where_there_is_one():
    line = {"difference": [0.5], "low": [0.1], "high": [0.9]}
    for paper, count in ({"paper": [1.2]}, 2), ({}, 1):
        axes = figures.differences(pd.DataFrame(line | paper, index=["row"]), "title")
        assert len(axes.get_legend().get_texts()) == count
    none = pd.DataFrame(line).iloc[:0]
    assert figures.differences(none, "title").get_legend() is None
