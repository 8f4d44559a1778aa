"""Trainings: curves, chains of students, chosen assistants.

Small enough to be drawn again at every move of a widget.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from leadkit.lessons.figures.plots import (
    PALETTE,
    STUDENT,
    TEACHER,
    Values,
    legend_below,
    lines,
    plain_titles,
    smooth,
)


def training(
    log: Sequence[Mapping[str, float]],
    dev: Mapping[int, float] | None = None,
    title: str = "",
    steps: int | None = None,
) -> Axes:
    """The log of a training: the parts of its loss, and its layer weights w1 .. wK if it has any.

    The title of the weights says how many layers are heard, a mean over the steps.

    log: one row per step. dev: step -> MRR@10 in percent, where it was measured.
    steps: of the whole training, the width of the panels.
    """
    frame = pd.DataFrame(log)
    # Not parts of a loss: the step, weights, and what MTA4DPR logs of its assistants.
    parts = [
        name
        for name in frame.filter(regex=r"^(?!(step|total|chosen|layers_heard|[wd]\d+)$)")
        if frame[name].any()
    ]
    smoothed: dict[str, Values] = {name: smooth(frame[name]) for name in frame}
    weights = list(frame.filter(regex=r"^w\d+$"))
    panels: list[tuple[dict[str, Values], str, str, Values | None]] = []
    shown = {name: smoothed[name] for name in parts}
    panels.append((shown, "Parts of the loss, running mean of ten", "nats", None))
    if weights:
        shown = {name: smoothed[name] for name in weights}
        name = "Layer weights, running mean of ten"
        if "layers_heard" in frame:
            name += f"\n{frame['layers_heard'].mean():.2f} of {len(weights)} layers heard"
        panels.append((shown, name, "weight", None))
    if dev:
        panels.append(({"MRR@10": list(dev.values())}, "On a sample of dev", "percent", list(dev)))
    figure, drawn = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False)
    for axes, (columns, name, y, at) in zip(drawn[0], panels, strict=True):
        if columns:  # there has been a step
            lines(columns, name, "steps done", y, at=at, axes=axes)
            legend_below(axes)
        axes.set_xlim(0, (steps or len(frame)) + 1)
    if dev:
        # Wide limits: a tenth of a point is no event.
        drawn[0, -1].set_ylim(min(dev.values()) - 2, max(dev.values()) + 2)
    plain_titles(*drawn[0])
    figure.suptitle(title)
    figure.subplots_adjust(left=0.17 / len(panels), right=0.98, bottom=0.28, top=0.82, wspace=0.28)
    return drawn[0, 0]


def gaps(
    table: Mapping[str, Mapping[str, np.ndarray]],
    taught: Mapping[str, str],
    teacher: str,
    stage: str,
) -> Axes:
    """How far each student of a chain is from its teachers, and what one stage changed.

    table: teacher -> student, in the order of the chain -> the gap on each query (Q,), nats.
    taught: stage -> its teacher.
    teacher, stage: the right panel shows this stage's change of the gap to this teacher.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2))
    students = list(table[teacher])
    now = students.index(stage)
    before, after = (table[teacher][name] for name in students[now - 1 : now + 1])  # (Q,)
    for colour, marker, (name, column) in zip(PALETTE, "os^Dv", table.items(), strict=False):
        means = [values.mean() for values in column.values()]
        left.plot(
            students,
            means,
            color=colour,
            marker=marker,
            linewidth=4 if name == teacher else 1.5,
            label=name,
        )
        own = [i for i, student in enumerate(students) if taught.get(student) == name]
        left.plot(
            own,
            [means[i] for i in own],
            marker,
            color=colour,
            markersize=17,
            fillstyle="none",
            markeredgewidth=2,
        )
        if name == teacher:
            right.plot(before, after, "o", color=colour, alpha=0.6)
    left.axvspan(now - 1, now, color="grey", alpha=0.2)
    left.set(title="Mean gap; a ring: who teaches this stage", ylabel="gap, nats")
    left.set_ylim(0, 1.15 * left.dataLim.y1)
    legend_below(left)
    ends = [0, 1.05 * max(values.max() for column in table.values() for values in column.values())]
    right.plot(ends, ends, ":", color="black")
    right.set(
        title=f"{stage}: {(after < before).sum()} of {len(after)} nearer to the {teacher}",
        xlabel="gap before, nats",
        ylabel="gap after, nats",
        xlim=ends,
        ylim=ends,
    )
    plain_titles(left, right)
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.25, top=0.9, wspace=0.25)
    return left


def choices(
    far: np.ndarray, chosen: np.ndarray, names: Sequence[str], step: int, title: str
) -> Axes:
    """Which assistant is chosen at each step, and the distances of all at one step.

    far: (F, steps). chosen: (steps,). step: from 1.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2), sharey=True)
    nearest, at = chosen[step - 1], np.arange(1, len(chosen) + 1)
    left.plot(at, chosen, "o", color=STUDENT)
    left.plot(step, nearest, "o", color=TEACHER, markersize=14)
    left.axvline(step, color=TEACHER, linewidth=1)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(
        title=title,
        xlabel="step",
        xlim=(0, len(chosen) + 1),
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.5, -0.5),
    )
    right.barh(
        range(len(names)),
        far[:, step - 1],
        color=[TEACHER if i == nearest else STUDENT for i in range(len(names))],
    )
    right.plot(
        far.mean(1),
        range(len(names)),
        "|",
        color="black",
        markersize=18,
        markeredgewidth=2,
        zorder=3,
    )
    right.set(
        title=f"Step {step}: {names[nearest]}",
        xlabel="distance (line: mean of all steps)",
        xlim=(0, 1.05 * far.max()),
    )
    plain_titles(left, right)
    figure.subplots_adjust(left=0.2, right=0.97, bottom=0.17, top=0.88, wspace=0.06)
    return left
