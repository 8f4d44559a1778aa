"""The made worlds: what each teacher layer knows, and what students learnt from it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from leadkit.lessons.figures.plots import ASSISTANT, STUDENT, TEACHER, axes_or_new
from leadkit.lessons.world.made import GROUPS, Layer

PARTS = [*(f"topic {group}" for group in range(1, GROUPS + 1)), "distraction", "certainty"]
CLOSE = 0.04  # nats between two points whose names would collide
CERTAIN = 8  # a certainty that is drawn as a full square


def teacher_layers(
    layers: Sequence[Layer], title: str = "What the teacher says", axes: Axes | None = None
) -> Axes:
    """A square for each layer and each part of its score; the larger the part, the larger it is."""
    axes = axes_or_new(axes)
    for column, layer in enumerate(layers, start=1):
        topics = [float(group in layer.knows) for group in range(1, GROUPS + 1)]
        sizes = [*topics, layer.distraction / 2, layer.certainty / CERTAIN]
        for row, size in enumerate(sizes):
            known = row < GROUPS
            colour = TEACHER if known else "dimgrey"
            area = 330 * min(size, 1)
            axes.scatter(column, row, area, color=colour, marker="s" if known else "X")
    axes.set(title=title, xlabel="teacher layer", xlim=(0.5, len(layers) + 0.5))
    axes.set(yticks=range(len(PARTS)), yticklabels=PARTS, ylim=(len(PARTS) - 0.5, -0.5))
    axes.set_xticks(range(1, len(layers) + 1))
    return axes


def learnt(
    students: Mapping[str, Sequence[float] | np.ndarray], title: str, axes: Axes | None = None
) -> Axes:
    """Method -> MRR@10 of its students: a dot each, and a line at their mean."""
    axes = axes_or_new(axes)
    for row, values in enumerate(students.values()):
        mean = np.mean(values)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color=STUDENT, linewidth=3)
        if len(values) > 1:
            axes.plot(values, np.full(len(values), row), "o", color=STUDENT, alpha=0.35)
        axes.annotate(
            f"{mean:.1f}", (mean, row - 0.3), (0, 2), textcoords="offset points", ha="center"
        )
    axes.set(title=title, xlabel="MRR@10 of the student, percent", xlim=(0, 100))
    axes.set(yticks=range(len(students)), yticklabels=students)
    axes.set_ylim(len(students) - 0.4, -0.7)
    return axes


def world_differences(found: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Differences of `results.worlds.table` with their 95% intervals, a line each."""
    axes = axes_or_new(axes)
    rows = np.arange(len(found))
    ends = [found["points"] - found["low"], found["high"] - found["points"]]
    axes.errorbar(found["points"], rows, xerr=ends, fmt="o", color=STUDENT, capsize=4)
    labels = [f"{world}: {pair}" for world, pair in found["difference"].items()]
    axes.set(yticks=rows, yticklabels=labels, ylim=(len(found) - 0.5, -0.5))
    axes.axvline(0, color="dimgrey", linewidth=1)
    axes.set(xlabel="points of MRR@10, 95% interval")
    axes.set_title("A part pays where the world asks for it, and not in the twin")
    return axes


def assisted_gains(measured: Mapping[str, pd.DataFrame]) -> list[Axes]:
    """What a student gains from an assistant, against how far that assistant is from the teacher.

    A panel per teacher. measured: title -> a row per assistant, by what it knows, with the columns
    distance, gain, low, high.
    """
    figure, panels = plt.subplots(
        1, len(measured), figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    for axes, (title, table) in zip(np.atleast_1d(panels), measured.items(), strict=True):
        axes.axhline(0, color="black", linewidth=1)
        ends = [table["gain"] - table["low"], table["high"] - table["gain"]]
        axes.errorbar(
            table["distance"], table["gain"], yerr=ends, fmt="o", color=ASSISTANT, capsize=4
        )
        _name_assistants(axes, table)
        axes.set(title=title, xlabel="assistant's distance to the teacher, nats")
        axes.margins(x=0.2)
    np.atleast_1d(panels)[0].set_ylabel("gain of the student, points")
    return list(np.atleast_1d(panels))


def _name_assistants(axes: Axes, table: pd.DataFrame) -> None:
    """A name beside each point: on the left where another point follows closely on the right.

    A star stands for "distracted".
    """
    table = table.sort_values("distance")
    follows = -table["distance"].diff(-1)  # to the next point
    for known, row in table.iterrows():
        left = follows[known] < CLOSE
        axes.annotate(
            str(known).replace(", distracted", "*"),
            (row["distance"], row["gain"]),
            (-7 if left else 7, -14 if "distracted" in str(known) else 4),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize="small",
        )
