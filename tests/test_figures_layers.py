"""The figures of layers: two towers with the lines between them, and a bar per layer."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from leadkit.lessons import figures


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn_lines(collection):
    """(student's layer, teacher's layer) of each line in a toy of 2 and 4 layers."""
    return {
        (round(2 * student[1]), round(4 * teacher[1]))
        for teacher, student in collection.get_segments()
    }


def filled(dots):
    return [
        i
        for i, colour in enumerate(dots.get_facecolors(), start=1)
        if tuple(colour[:3]) != (1, 1, 1)
    ]


def test_a_line_joins_each_student_layer_to_the_one_that_teaches_it():
    axes = figures.towers(
        (1, 2), (2, 3), "a draw", student_layers=2, teacher_layers=4, before=[(1, 1), (2, 4)]
    )
    teacher, student, before, now = axes.collections
    assert (drawn_lines(before), drawn_lines(now)) == ({(1, 1), (2, 4)}, {(1, 2), (2, 3)})
    assert (len(teacher.get_offsets()), len(student.get_offsets())) == (4, 2)
    assert {x for x, _ in teacher.get_offsets()} == {0} and {
        x for x, _ in student.get_offsets()
    } == {1}
    assert filled(teacher) == [2, 3] and filled(student) == [1, 2]
    assert axes.get_title() == "a draw"


def test_every_layer_has_its_number_beside_its_dot_and_both_towers_are_equally_high():
    axes = figures.towers((6,), (12,), "")
    teacher, student, *_ = axes.collections
    for dots, x, side in ((teacher, 0, -1), (student, 1, 1)):
        numbers = {
            text.get_text(): text.xy[1]
            for text in axes.texts
            if text.xy[0] == x and text.get_position()[0] * side > 0
        }
        assert list(numbers) == [str(i) for i in range(1, len(dots.get_offsets()) + 1)]
        assert list(numbers.values()) == pytest.approx(list(dots.get_offsets()[:, 1]))
    assert teacher.get_offsets()[-1][1] == student.get_offsets()[-1][1]


def test_lines_of_sorted_layers_do_not_cross():
    *_, now = figures.towers((1, 3, 6), (2, 5, 11), "").collections
    ends = sorted((teacher[1], student[1]) for teacher, student in now.get_segments())
    assert [high for _, high in ends] == sorted(high for _, high in ends)


@pytest.mark.parametrize(
    "student, teacher, message",
    [
        (
            (1, 2),
            (3,),
            r"student is \(1, 2\), teacher \(3,\): the i-th teaches the i-th, give as many of both",
        ),
        ((1, 7), (1, 2), r"student is \(1, 7\): layer 7 is not one of 1 to 6"),
        ((1, 2), (0, 2), r"teacher is \(0, 2\): layer 0 is not one of 1 to 12"),
    ],
)
def test_layers_that_cannot_be_joined(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        figures.towers(student, teacher, "")


def test_a_bar_per_layer_a_dash_at_the_value_before_and_one_layer_marked():
    axes = figures.layer_bars(
        [0.1, 0.6, 0.3],
        "weights",
        "weight",
        before=[0.2, 0.2, 0.6],
        marked=2,
        colour=figures.STUDENT,
    )
    bars, (dashes,) = axes.patches, axes.collections
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars] == [
        (1, 0.1),
        (2, 0.6),
        (3, 0.3),
    ]
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, False]
    assert {to_rgb(bar.get_facecolor()[:3]) for bar in bars} == {figures.STUDENT}
    middles = [
        ((left + right) / 2, low, high) for (left, low), (right, high) in dashes.get_segments()
    ]
    assert middles == [(pytest.approx(x), y, y) for x, y in ((1, 0.2), (2, 0.2), (3, 0.6))]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == (
        "weights",
        "layer",
        "weight",
    )
    assert list(axes.get_xticks()) == [1, 2, 3]


def test_bars_alone_and_on_given_axes():
    given = plt.subplots()[1]
    axes = figures.layer_bars([1.0, 2.0], "", "", axes=given)
    assert (
        axes is given and not axes.collections and not any(bar.get_hatch() for bar in axes.patches)
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"before": [1.0]}, "before has 1 values: give one per layer, 2"),
        ({"marked": 0}, "marked is 0: it must be a layer from 1 to 2"),
        ({"marked": 3}, "marked is 3"),
    ],
)
def test_bars_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        figures.layer_bars([1.0, 2.0], "", "", **options)


def test_a_curve_for_each_pair_of_gradients():
    line = {"first": "layer", "second": "student", "block": 1, "mean": 0.5, "sd": 0.1}
    other = line | {"first": "response"}
    lines = [line, line | {"block": 2, "mean": None, "sd": None}, other, other | {"block": 2}]
    axes = figures.gradient_cosines(lines, "t")
    first, second = (container.lines[0] for container in axes.containers)
    assert first.get_ydata()[0] == 0.5 and np.isnan(first.get_ydata()[1])
    assert second.get_ydata().tolist() == [0.5, 0.5] and len(second.get_xdata()) == 2
    assert axes.get_legend() is None
    assert {text.get_text() for text in axes.texts} == {"layer, student", "response, student"}


def test_layer_curves_are_over_the_depth_in_the_colour_of_the_model():
    curves = {"teacher": [2.0, 1.0], "student": [3.0]}
    axes = figures.layer_curves(curves, "t", "nats", 4.0)
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["teacher"].get_xdata().tolist() == [0.5, 1]
    assert drawn["student"].get_xdata().tolist() == [1]
    assert to_rgb(drawn["teacher"].get_color()) == to_rgb(figures.TEACHER)
    assert to_rgb(drawn["student"].get_color()) == to_rgb(figures.STUDENT)
    assert [text.get_text() for text in axes.texts] == ["says nothing"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
