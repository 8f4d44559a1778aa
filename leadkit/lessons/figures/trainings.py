"""Trainings: curves, chosen assistants.

Small enough to be drawn again at every move of a widget.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from leadkit.lessons.figures.plots import (
    ASSISTANT,
    PALETTE,
    STUDENT,
    TEACHER,
    Values,
    legend_below,
    lines,
    plain_titles,
    smooth,
)

# Of the parts of a loss and of the student on dev.
COLOURS = {
    "student": STUDENT,
    "teacher": TEACHER,
    "layer": PALETTE[4],
    "response": PALETTE[2],
    "MRR@10": STUDENT,
}


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
            for i, line in enumerate(axes.get_lines()):
                grey = str(0.7 - 0.7 * i / len(columns))  # of a layer's weight
                line.set_color(COLOURS.get(str(line.get_label()), grey))
            legend_below(axes)
        axes.set_xlim(0, (steps or len(frame)) + 1)
    if dev:
        # Wide limits: a tenth of a point is no event.
        drawn[0, -1].set_ylim(min(dev.values()) - 2, max(dev.values()) + 2)
    plain_titles(*drawn[0])
    figure.suptitle(title)
    figure.subplots_adjust(left=0.17 / len(panels), right=0.98, bottom=0.28, top=0.82, wspace=0.28)
    return drawn[0, 0]


def choices(
    far: np.ndarray, chosen: np.ndarray, names: Sequence[str], step: int, title: str
) -> Axes:
    """Which assistant is chosen at each step, and the distances of all at one step.

    far: (F, steps). chosen: (steps,). step: from 1.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2), sharey=True)
    nearest, at = chosen[step - 1], np.arange(1, len(chosen) + 1)
    left.plot(at, chosen, "o", color=ASSISTANT)
    left.plot(step, nearest, "o", color=ASSISTANT, markersize=14, markeredgecolor="black")
    left.axvline(step, color="black", linewidth=1)
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
        color=[ASSISTANT if i == nearest else "0.75" for i in range(len(names))],
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
