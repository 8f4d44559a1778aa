"""The shared plots: one style, colour-blind-safe, readable from the last row.

Each returns the Axes it drew on.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

PALETTE = sns.color_palette("colorblind")
TEACHER, STUDENT, ASSISTANT = PALETTE[1], PALETTE[0], PALETTE[2]
NEUTRAL = ("0.15", PALETTE[2], PALETTE[4], PALETTE[5])  # of curves that are no model's
Values = Sequence[float] | np.ndarray


def style() -> None:
    """Set the style of every figure: call it once, at the top of a notebook."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        font_scale=1.1,
        rc={
            "figure.figsize": (8, 4),
            "figure.dpi": 90,
            "savefig.bbox": "tight",
            "axes.titleweight": "bold",
            "axes.titley": 1,
        },
    )  # where it is anyway: matplotlib need not look for room at every drawing


def axes_or_new(axes: Axes | None) -> Axes:
    return plt.subplots()[1] if axes is None else axes


def plain_titles(*panels: Axes) -> None:
    """Give the titles a fixed height: the search for a free one takes a third of the drawing."""
    for axes in panels:
        axes.set_title(axes.get_title(), fontsize="medium", y=1.01)


def legend_below(axes: Axes) -> None:
    """One row under the axis's label: beside nothing that moves."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.23),
        ncols=len(axes.get_legend_handles_labels()[1]),
        fontsize="small",
        handletextpad=0.4,
        columnspacing=1,
        handlelength=1.6,
    )


def distributions(
    rows: Mapping[str, Sequence[float]],
    title: str,
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
    colours: Sequence = (STUDENT, TEACHER, *PALETTE[2:]),
) -> Axes:
    """Score distributions over the same candidates, side by side: name -> C probabilities.

    colours: of the rows.
    """
    axes = axes_or_new(axes)
    candidates = len(next(iter(rows.values())))
    names = labels if labels is not None else [str(i) for i in range(1, candidates + 1)]
    x, width = np.arange(len(names)), 0.8 / len(rows)
    for i, ((name, values), colour) in enumerate(zip(rows.items(), colours, strict=False)):
        axes.bar(x - 0.4 + (i + 0.5) * width, values, width, label=name, color=colour)
    axes.set_xticks(x, names)
    axes.legend()
    axes.set(title=title, xlabel="candidate", ylabel="probability", ylim=(0, 1))
    return axes


def lines(
    columns: Mapping[str, Values],
    title: str,
    x: str,
    y: str,
    at: Values | None = None,
    log: bool = False,
    axes: Axes | None = None,
    colours: Sequence = PALETTE,
) -> Axes:
    """Curves over the same x (1, 2, ... by default), told apart by colour, dash and marker.

    colours: of the curves, in turn.
    """
    axes = axes_or_new(axes)
    for (name, values), colour, dash, marker in zip(
        columns.items(),
        cycle(colours),
        ["-", "--", "-.", ":"] * 4,
        "os^Dvx*P" * 2,
        strict=False,
    ):
        axes.plot(
            at if at is not None else np.arange(1, len(values) + 1),
            values,
            dash,
            marker=marker if len(values) <= 30 else None,
            color=colour,
            label=name,
        )
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log" if log else "linear")
    axes.legend()
    return axes


def label_ends(axes: Axes) -> Axes:
    """Write the name of each line at its end, in its colour, instead of a legend.

    A line that leaves the axes is named where it was last inside.
    """
    apart = 0.08  # least distance of two names, as a share of the axes' height
    if (legend := axes.get_legend()) is not None:
        legend.remove()
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    axes.autoscale_view()  # the limits are those of the drawn lines from here on
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = {}
    for line in named:
        points = to_axes.transform(np.asarray(line.get_xydata()))  # (points, 2)
        inside = np.flatnonzero((points >= 0).all(1) & (points <= (1, 0.96)).all(1))  # no title
        ends[line] = points[inside[-1] if len(inside) else -1]
    named.sort(key=lambda line: ends[line][1])
    lowest = -np.inf
    for line in named:
        x, y = ends[line]
        lowest = max(y, lowest + apart)
        axes.annotate(
            str(line.get_label()),
            (x + 0.015, lowest),
            xycoords="axes fraction",
            va="center",
            color=line.get_color(),
            annotation_clip=False,
        )
    return axes


def bars(
    values: Mapping[str, float],
    title: str,
    x: str,
    errors: Mapping[str, tuple[float, float]] | None = None,
    paper: Mapping[str, float] | None = None,
) -> Axes:
    """One horizontal bar per row, the first on top.

    errors: row -> (low, high), the ends of its interval. paper: row -> the paper's value, a
        diamond.
    """
    axes = plt.subplots()[1]
    names, y = list(values), np.arange(len(values))
    ends = errors and [
        [values[n] - errors[n][0] for n in names],
        [errors[n][1] - values[n] for n in names],
    ]
    axes.barh(y, [values[n] for n in names], xerr=ends, color=STUDENT, capsize=4)
    if paper:
        known = [i for i, n in enumerate(names) if n in paper]
        axes.plot(
            [paper[names[i]] for i in known],
            known,
            "D",
            color="black",
            fillstyle="none",
            label="paper (MS MARCO passage)",
        )
        # Under the label, whatever the height.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.8)
    axes.set(title=title, xlabel=x, yticks=y, yticklabels=names)
    axes.invert_yaxis()
    return axes


def smooth(values: Sequence[float]) -> np.ndarray:
    """Running mean over up to ten past values, as long as the input."""
    return pd.Series(values, dtype=float).rolling(10, min_periods=1).mean().to_numpy()
