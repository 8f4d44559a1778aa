"""Towers and their layers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from leadkit.lessons.figures.plots import PALETTE, STUDENT, TEACHER, axes_or_new, label_ends


def towers(
    student: Sequence[int],
    teacher: Sequence[int],
    title: str,
    student_layers: int = 6,
    teacher_layers: int = 12,
    before: Iterable[tuple[int, int]] = (),
    axes: Axes | None = None,
) -> Axes:
    """A selection of layers: both towers, with a line between layers that are aligned.

    Layer 1 is at the bottom; selected layers are filled.
    before: pairs (student's layer, teacher's layer) of earlier selections, drawn as thin lines.
    ValueError for more layers of one tower than of the other, or a layer that a tower does not
    have.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"student is {tuple(student)}, teacher {tuple(teacher)}: the i-th teaches the "
            "i-th, give as many of both"
        )
    axes = axes_or_new(axes)
    for name, x, side, depth, drawn, colour in (
        ("teacher", 0, -15, teacher_layers, teacher, TEACHER),
        ("student", 1, 15, student_layers, student, STUDENT),
    ):
        if wrong := [layer for layer in drawn if not 1 <= layer <= depth]:
            raise ValueError(
                f"{name} is {tuple(drawn)}: layer {wrong[0]} is not one of 1 to {depth}"
            )
        layers = np.arange(1, depth + 1)
        face = [colour if layer in drawn else "white" for layer in layers]
        axes.scatter([x] * depth, layers / depth, s=170, c=face, edgecolors="grey", zorder=2)
        for layer in layers:
            axes.annotate(
                str(layer),
                (x, layer / depth),
                (side, 0),
                textcoords="offset points",
                ha="center",
                va="center_baseline",
                fontsize="small",
            )
    for pairs, colour, width in (
        (before, "lightgrey", 1),
        (zip(student, teacher, strict=True), "dimgrey", 2),
    ):
        ends = [((0, a / teacher_layers), (1, b / student_layers)) for b, a in pairs]
        axes.add_collection(LineCollection(ends, colors=colour, linewidths=width, zorder=1))
    axes.set(
        title=title,
        xlim=(-0.4, 1.4),
        ylim=(0, 1.08),
        xticks=[0, 1],
        xticklabels=["teacher", "student"],
        yticks=[],
    )
    return axes


def layer_bars(
    values: Sequence[float],
    title: str,
    y: str,
    before: Sequence[float] | None = None,
    marked: int | None = None,
    colour: tuple[float, ...] = TEACHER,
    axes: Axes | None = None,
) -> Axes:
    """A bar per layer, from layer 1.

    before: earlier values, drawn as black dashes. marked: the layer whose bar is hatched.
    ValueError for a `before` of another length or a `marked` that is no layer.
    """
    if before is not None and len(before) != len(values):
        raise ValueError(f"before has {len(before)} values: give one per layer, {len(values)}")
    if marked is not None and not 1 <= marked <= len(values):
        raise ValueError(f"marked is {marked}: it must be a layer from 1 to {len(values)}")
    axes = axes_or_new(axes)
    layers = np.arange(1, len(values) + 1)
    axes.bar(
        layers, values, color=colour, hatch=["//" if layer == marked else "" for layer in layers]
    )
    if before is not None:
        axes.hlines(before, layers - 0.4, layers + 0.4, color="black", linewidth=2)
    axes.set(title=title, xlabel="layer", ylabel=y, xticks=layers)
    axes.grid(visible=False, axis="x")
    return axes


def layer_curves(
    curves: Mapping[str, Sequence[float]],
    title: str,
    y: str,
    limit: float,
    axes: Axes | None = None,
) -> Axes:
    """A value of each layer over its depth in the tower: a curve per model.

    curves: model -> its values, from layer 1. The names of teachers begin with "teacher".
    limit: the value of a layer that says nothing, a dotted line.
    """
    axes = axes_or_new(axes)
    dashes = iter([":", "--", "-"])
    for name, values in curves.items():
        deep = np.arange(1, len(values) + 1) / len(values)
        if name.startswith("teacher"):
            axes.plot(deep, values, "s-", color=TEACHER, label=name)
        else:
            axes.plot(deep, values, next(dashes), marker="o", color=STUDENT, label=name)
    axes.axhline(limit, color="dimgrey", linestyle=(0, (1, 3)))
    axes.annotate("says nothing", (1, limit), (2, -4), textcoords="offset points", fontsize=10)
    axes.set(title=title, xlabel="layer / number of layers", ylabel=y, xlim=(0, 1.02))
    axes.legend(fontsize="small")
    return axes


def gradient_cosines(lines: Sequence[Mapping[str, Any]], title: str) -> Axes:
    """The lines of `agreement.gradient_cosines`: a curve per pair of loss parts over the blocks.

    Whiskers are a standard deviation over the batches. A curve is named at its end.
    """
    axes = axes_or_new(None)
    pairs = list(dict.fromkeys((line["first"], line["second"]) for line in lines))
    looks = zip(pairs, "os^", (PALETTE[2], PALETTE[4], "dimgrey"), strict=False)
    for i, ((first, second), marker, colour) in enumerate(looks):
        rows = [line for line in lines if (line["first"], line["second"]) == (first, second)]
        columns = [[line[name] for line in rows] for name in ("block", "mean", "sd")]
        blocks, means, deviations = np.array(columns, float)
        beside = blocks + 0.04 * (i - 1)  # whiskers do not hide each other
        drawn = axes.errorbar(beside, means, deviations, marker=marker, color=colour, capsize=3)
        drawn.lines[0].set_label(f"{first}, {second}")
    axes.axhline(0, color="black", linewidth=1)
    axes.set(title=title, xlabel="block of the student", ylabel="cosine", ylim=(-0.55, 1.05))
    axes.set_xticks(sorted({line["block"] for line in lines}))
    for text in label_ends(axes).texts:
        text.set_x(1.02)  # beside the whiskers of all curves
    return axes
