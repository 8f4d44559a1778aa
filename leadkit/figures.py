"""The shared plots: one style, colour-blind-safe, readable from the last row. Each returns the Axes it drew on."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

PALETTE = sns.color_palette("colorblind")
TEACHER, STUDENT = PALETTE[1], PALETTE[0]


def style() -> None:
    """Set the style of every figure: call it once, at the top of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", font_scale=1.1,
                  rc={"figure.figsize": (8, 4), "figure.dpi": 90, "savefig.bbox": "tight", "axes.titleweight": "bold"})


def _axes(axes: Axes | None) -> Axes:
    return plt.subplots()[1] if axes is None else axes


def distributions(rows: Mapping[str, Sequence[float]], title: str, labels: Sequence[str] | None = None,
                  axes: Axes | None = None) -> Axes:
    """Score distributions over the same candidates, side by side: name -> C probabilities."""
    axes = _axes(axes)
    frame = pd.DataFrame(rows, index=labels if labels is not None else range(1, len(next(iter(rows.values()))) + 1))
    frame.plot.bar(ax=axes, color=[STUDENT, TEACHER, *PALETTE[2:]][: len(rows)], width=0.8, rot=0)
    axes.set(title=title, xlabel="candidate", ylabel="probability", ylim=(0, 1))
    return axes


def heat(matrix: np.ndarray, title: str, x: str, y: str, xticks: Sequence | None = None, yticks: Sequence | None = None,
         digits: int | None = 2, axes: Axes | None = None) -> Axes:
    """A matrix as colours, lighter is larger; `digits` of each value are printed in its cell (None: no numbers)."""
    axes = _axes(axes)
    sns.heatmap(matrix, ax=axes, cmap="viridis", annot=digits is not None, fmt=f".{digits or 0}f", cbar=digits is None,
                xticklabels=xticks if xticks is not None else list(range(1, matrix.shape[1] + 1)),
                yticklabels=yticks if yticks is not None else list(range(1, matrix.shape[0] + 1)))
    axes.set(title=title, xlabel=x, ylabel=y)
    return axes


def lines(columns: Mapping[str, Sequence[float]], title: str, x: str, y: str, at: Sequence[float] | None = None, log: bool = False,
          axes: Axes | None = None) -> Axes:
    """Curves over the same x (1, 2, ... by default), told apart by colour, dash and marker."""
    axes = _axes(axes)
    for (name, values), dash, marker in zip(columns.items(), ["-", "--", "-.", ":"] * 4, "os^Dvx*P" * 2, strict=False):
        axes.plot(at if at is not None else np.arange(1, len(values) + 1), values, dash,
                  marker=marker if len(values) <= 30 else None, label=name)
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log" if log else "linear")
    axes.legend()
    return axes


def bars(values: Mapping[str, float], title: str, x: str, errors: Mapping[str, tuple[float, float]] | None = None,
         paper: Mapping[str, float] | None = None, axes: Axes | None = None) -> Axes:
    """One horizontal bar per row, first on top; `errors` are (low, high) ends of intervals, `paper` marks the paper's value."""
    axes = _axes(axes)
    names, y = list(values), np.arange(len(values))
    ends = errors and [[values[n] - errors[n][0] for n in names], [errors[n][1] - values[n] for n in names]]
    axes.barh(y, [values[n] for n in names], xerr=ends, color=STUDENT, capsize=4)
    if paper:
        known = [i for i, n in enumerate(names) if n in paper]
        axes.plot([paper[names[i]] for i in known], known, "D", color=TEACHER, label="paper (MS MARCO passage)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.8)  # under the label, whatever the height
    axes.set(title=title, xlabel=x, yticks=y, yticklabels=names)
    axes.invert_yaxis()
    return axes


def main_table(table: pd.DataFrame) -> Axes:
    """MRR@10 of every row of `recipes.summarise`, with the standard deviation over seeds and the paper's values."""
    values = table["MRR@10"].to_dict()
    spread = table["sd"].fillna(0).to_dict()
    axes = bars(values, "Main table: ours, and the paper's on another collection", "MRR@10, percent",
                errors={row: (v - spread[row], v + spread[row]) for row, v in values.items()} if any(spread.values()) else None,
                paper=table["paper MRR@10"].dropna().to_dict())
    axes.figure.set_size_inches(9, 5)
    return axes


def against_cost(table: pd.DataFrame, title: str, x: str, y: str = "MRR@10, percent", axes: Axes | None = None) -> Axes:
    """A value with its interval against the cost of training: a labelled point per row of a table with cost, value, low, high.

    The labels stand right of the axes in the order of the values, a thin line from each to its point, so none hides another.
    ValueError where a column or a number is missing, or an interval leaves its value out.
    """
    columns = ["cost", "value", "low", "high"]
    if missing := [column for column in columns if column not in table]:
        raise ValueError(f"the table lacks {', '.join(missing)}: it must have the columns {', '.join(columns)}")
    for name, row in table[columns].iterrows():
        if not (np.isfinite(row["cost"]) and row["low"] <= row["value"] <= row["high"]):
            raise ValueError(f"the row of {name} is {row.to_dict()}: its cost must be a number, its value one from low to high")
    axes = _axes(axes)
    table = table.sort_values("value", kind="stable")
    heights = (np.arange(len(table)) + 0.5) / len(table)  # of the labels, from 0 to 1 on the axes
    for (name, row), height, colour in zip(table.iterrows(), heights, sns.color_palette("colorblind", len(table)), strict=True):
        cost, value = row["cost"], row["value"]
        axes.errorbar(cost, value, yerr=[[value - row["low"]], [row["high"] - value]], fmt="o", color=colour, capsize=4)
        axes.annotate(str(name), (cost, value), (1.04, height), textcoords="axes fraction", va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "relpos": (0, 0.5)})
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.margins(x=0.08)
    return axes


def smooth(values: Sequence[float], window: int = 10) -> np.ndarray:
    """Running mean over up to `window` past values, as long as the input."""
    return pd.Series(values, dtype=float).rolling(window, min_periods=1).mean().to_numpy()


def towers(student: Sequence[int], teacher: Sequence[int], title: str, student_layers: int = 6, teacher_layers: int = 12,
           before: Iterable[tuple[int, int]] = (), axes: Axes | None = None) -> Axes:
    """A selection: both towers, layer 1 at the bottom, the selected layers filled, a line from each to the one that it teaches.

    before: pairs (student's layer, teacher's layer) of earlier selections, as thin lines. ValueError for another number of
    student layers than of teacher layers, or a layer that a tower does not have.
    """
    if len(student) != len(teacher):
        raise ValueError(f"student is {tuple(student)}, teacher {tuple(teacher)}: the i-th teaches the i-th, give as many of both")
    axes = _axes(axes)
    for name, x, side, depth, drawn, colour in (("teacher", 0, -15, teacher_layers, teacher, TEACHER),
                                                ("student", 1, 15, student_layers, student, STUDENT)):
        if wrong := [layer for layer in drawn if not 1 <= layer <= depth]:
            raise ValueError(f"{name} is {tuple(drawn)}: layer {wrong[0]} is not one of 1 to {depth}")
        layers = np.arange(1, depth + 1)
        face = [colour if layer in drawn else "white" for layer in layers]
        axes.scatter([x] * depth, layers / depth, s=170, c=face, edgecolors="grey", zorder=2)
        for layer in layers:
            axes.annotate(str(layer), (x, layer / depth), (side, 0), textcoords="offset points", ha="center", va="center_baseline",
                          fontsize="small")
    for pairs, colour, width in ((before, "lightgrey", 1), (zip(student, teacher, strict=True), "dimgrey", 2)):
        ends = [((0, a / teacher_layers), (1, b / student_layers)) for b, a in pairs]
        axes.add_collection(LineCollection(ends, colors=colour, linewidths=width, zorder=1))
    axes.set(title=title, xlim=(-0.4, 1.4), ylim=(0, 1.08), xticks=[0, 1], xticklabels=["teacher", "student"], yticks=[])
    return axes


def layer_bars(values: Sequence[float], title: str, y: str, before: Sequence[float] | None = None, marked: int | None = None,
               colour: tuple[float, ...] = TEACHER, axes: Axes | None = None) -> Axes:
    """A value per layer, from layer 1: bars, the one of layer `marked` hatched, a black dash at each value of `before`.

    ValueError for a `before` of another length or a `marked` that is no layer.
    """
    if before is not None and len(before) != len(values):
        raise ValueError(f"before has {len(before)} values: give one per layer, {len(values)}")
    if marked is not None and not 1 <= marked <= len(values):
        raise ValueError(f"marked is {marked}: it must be a layer from 1 to {len(values)}")
    axes = _axes(axes)
    layers = np.arange(1, len(values) + 1)
    axes.bar(layers, values, color=colour, hatch=["//" if layer == marked else "" for layer in layers])
    if before is not None:
        axes.hlines(before, layers - 0.4, layers + 0.4, color="black", linewidth=2)
    axes.set(title=title, xlabel="layer", ylabel=y, xticks=layers)
    axes.grid(visible=False, axis="x")
    return axes
