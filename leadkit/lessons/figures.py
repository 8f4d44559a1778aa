"""The shared plots: one style, colour-blind-safe, readable from the last row. Each returns the Axes it drew on."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection, QuadMesh
from matplotlib.patches import Rectangle

PALETTE = sns.color_palette("colorblind")
TEACHER, STUDENT = PALETTE[1], PALETTE[0]


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


def _axes(axes: Axes | None) -> Axes:
    return plt.subplots()[1] if axes is None else axes


def distributions(
    rows: Mapping[str, Sequence[float]],
    title: str,
    labels: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Score distributions over the same candidates, side by side: name -> C probabilities."""
    axes = _axes(axes)
    names = labels if labels is not None else range(1, len(next(iter(rows.values()))) + 1)
    x, width = np.arange(len(names)), 0.8 / len(rows)
    for i, ((name, values), colour) in enumerate(
        zip(rows.items(), [STUDENT, TEACHER, *PALETTE[2:]], strict=False)
    ):
        axes.bar(x - 0.4 + (i + 0.5) * width, values, width, label=name, color=colour)
    axes.set_xticks(x, names)
    axes.legend()
    axes.set(title=title, xlabel="candidate", ylabel="probability", ylim=(0, 1))
    return axes


def _cells(
    matrix: np.ndarray,
    x: str,
    y: str,
    xticks: Sequence | None,
    yticks: Sequence | None,
    top: float | None,
    axes: Axes,
) -> QuadMesh:
    """A matrix as colours, row 0 on top, a tick for each row and column."""
    mesh = axes.pcolormesh(matrix, cmap="viridis", vmin=None if top is None else 0, vmax=top)
    for axis, ticks, count in (
        (axes.xaxis, xticks, matrix.shape[1]),
        (axes.yaxis, yticks, matrix.shape[0]),
    ):
        axis.set_ticks(
            np.arange(count) + 0.5,
            range(1, count + 1) if ticks is None else ticks,
            parse_math=False,
        )
        axis.set_tick_params(length=0)
    axes.set(xlabel=x, ylabel=y)
    axes.invert_yaxis()
    axes.grid(False)
    return mesh


def heat(
    matrix: np.ndarray,
    title: str,
    x: str,
    y: str,
    xticks: Sequence | None = None,
    yticks: Sequence | None = None,
    digits: int | None = 2,
    axes: Axes | None = None,
    top: float | None = None,
) -> Axes:
    """A matrix as colours, lighter is larger; `digits` of each value are printed in its cell (None: no numbers).

    top: the value of the lightest colour, where the darkest is to be 0; None: from the smallest value to the largest.
    """
    axes = _axes(axes)
    mesh = _cells(matrix, x, y, xticks, yticks, top, axes)
    if digits is None:
        axes.figure.colorbar(mesh, ax=axes)
    else:
        for (row, column), value in np.ndenumerate(matrix):
            ink = "0.15" if mesh.norm(value) > 0.7 else "white"
            axes.text(
                column + 0.5, row + 0.5, f"{value:.{digits}f}", color=ink, ha="center", va="center"
            )
    axes.set_title(title)
    return axes


def frame(axes: Axes, cells: Iterable[tuple[int, int]]) -> PatchCollection:
    """Frame cells of a `heat`: pairs of row and column, from 0. Returns the frames."""
    squares = [Rectangle((column, row), 1, 1) for row, column in cells]
    return axes.add_collection(
        PatchCollection(
            squares, facecolor="none", edgecolor=PALETTE[3], linewidth=2.5, clip_on=False
        )
    )


def token_map(
    products: np.ndarray,
    query: Sequence[str],
    passage: Sequence[str],
    title: str,
    axes: Axes | None = None,
) -> Axes:
    """MaxSim token by token: products (X, Y) of X query with Y passage tokens, lighter is larger.

    The largest of each row is framed; the title adds them up.
    """
    axes = _axes(axes)
    _cells(products, "", "", passage, query, None, axes)
    frame(axes, enumerate(products.argmax(1)))
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="x", rotation=90)
    axes.set_title(f"{title}: MaxSim {products.max(1).sum():.2f}", parse_math=False)
    return axes


def rank_lines(
    rankings: Mapping[str, Sequence[str]],
    title: str,
    relevant: Collection[str] = (),
    chosen: str | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Rankings of one query side by side, best on top; a line joins the places of the same passage in neighbouring columns.

    rankings: retriever -> passage ids, best first. Relevant passages are coloured and have a star, the chosen one is bold.
    """
    axes = _axes(axes)
    columns, joined, styles = list(rankings.values()), [], []
    for column, (ids, right) in enumerate(zip(columns, [*columns[1:], ()], strict=True)):
        for rank, passage in enumerate(ids, start=1):
            good, bold = passage in relevant, passage == chosen
            name = passage if len(passage) <= 25 else f"…{passage[-24:]}"
            axes.text(
                column,
                rank,
                f"★ {name}" if good else name,
                color=TEACHER if good else "0.2",
                ha="center",
                va="center",
                fontsize=8,
                fontweight="bold" if bold else "normal",
                parse_math=False,
            )
            if passage in right:
                joined.append([(column + 0.38, rank), (column + 0.62, right.index(passage) + 1)])
                styles.append((TEACHER if good else "0.6", 2.5 if good or bold else 1))
    colours, widths = zip(*styles, strict=True) if styles else ((), ())
    axes.add_collection(LineCollection(joined, colors=colours, linewidths=widths))
    depth = max(map(len, columns))
    axes.set(
        ylabel="rank",
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(depth + 0.6, 0.4),
        yticks=range(1, depth + 1),
    )
    axes.set_xticks(range(len(columns)), rankings)
    axes.set_title(title, parse_math=False)
    axes.grid(False)
    return axes


def lines(
    columns: Mapping[str, Sequence[float]],
    title: str,
    x: str,
    y: str,
    at: Sequence[float] | None = None,
    log: bool = False,
    axes: Axes | None = None,
) -> Axes:
    """Curves over the same x (1, 2, ... by default), told apart by colour, dash and marker."""
    axes = _axes(axes)
    for (name, values), dash, marker in zip(
        columns.items(), ["-", "--", "-.", ":"] * 4, "os^Dvx*P" * 2, strict=False
    ):
        axes.plot(
            at if at is not None else np.arange(1, len(values) + 1),
            values,
            dash,
            marker=marker if len(values) <= 30 else None,
            label=name,
        )
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log" if log else "linear")
    axes.legend()
    return axes


def bars(
    values: Mapping[str, float],
    title: str,
    x: str,
    errors: Mapping[str, tuple[float, float]] | None = None,
    paper: Mapping[str, float] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """One horizontal bar per row, first on top; `errors` are (low, high) ends of intervals, `paper` marks the paper's value."""
    axes = _axes(axes)
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
            color=TEACHER,
            label="paper (MS MARCO passage)",
        )
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.8
        )  # under the label, whatever the height
    axes.set(title=title, xlabel=x, yticks=y, yticklabels=names)
    axes.invert_yaxis()
    return axes


def main_table(table: pd.DataFrame) -> Axes:
    """MRR@10 of every row of `recipes.summarise`, with the standard deviation over seeds and the paper's values."""
    values = table["MRR@10"].to_dict()
    spread = table["sd"].fillna(0).to_dict()
    axes = bars(
        values,
        "Main table: ours, and the paper's on another collection",
        "MRR@10, percent",
        errors={row: (v - spread[row], v + spread[row]) for row, v in values.items()}
        if any(spread.values())
        else None,
        paper=table["paper MRR@10"].dropna().to_dict(),
    )
    axes.figure.set_size_inches(9, 5)
    return axes


def against_cost(
    table: pd.DataFrame, title: str, x: str, y: str = "MRR@10, percent", axes: Axes | None = None
) -> Axes:
    """A value with its interval against the cost of training: a labelled point per row of a table with cost, value, low, high.

    The labels stand right of the axes in the order of the values, a thin line from each to its point, so none hides another.
    ValueError where a column or a number is missing, or an interval leaves its value out.
    """
    columns = ["cost", "value", "low", "high"]
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"the table lacks {', '.join(missing)}: it must have the columns {', '.join(columns)}"
        )
    for name, row in table[columns].iterrows():
        if not (np.isfinite(row["cost"]) and row["low"] <= row["value"] <= row["high"]):
            raise ValueError(
                f"the row of {name} is {row.to_dict()}: its cost must be a number, its value one from low to high"
            )
    axes = _axes(axes)
    table = table.sort_values("value", kind="stable")
    heights = (np.arange(len(table)) + 0.5) / len(table)  # of the labels, from 0 to 1 on the axes
    for (name, row), height, colour in zip(
        table.iterrows(), heights, sns.color_palette("colorblind", len(table)), strict=True
    ):
        cost, value = row["cost"], row["value"]
        axes.errorbar(
            cost,
            value,
            yerr=[[value - row["low"]], [row["high"] - value]],
            fmt="o",
            color=colour,
            capsize=4,
        )
        axes.annotate(
            str(name),
            (cost, value),
            (1.04, height),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "relpos": (0, 0.5)},
        )
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.margins(x=0.08)
    return axes


def smooth(values: Sequence[float], window: int = 10) -> np.ndarray:
    """Running mean over up to `window` past values, as long as the input."""
    return pd.Series(values, dtype=float).rolling(window, min_periods=1).mean().to_numpy()


def towers(
    student: Sequence[int],
    teacher: Sequence[int],
    title: str,
    student_layers: int = 6,
    teacher_layers: int = 12,
    before: Iterable[tuple[int, int]] = (),
    axes: Axes | None = None,
) -> Axes:
    """A selection: both towers, layer 1 at the bottom, the selected layers filled, a line from each to the one that it teaches.

    before: pairs (student's layer, teacher's layer) of earlier selections, as thin lines. ValueError for another number of
    student layers than of teacher layers, or a layer that a tower does not have.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"student is {tuple(student)}, teacher {tuple(teacher)}: the i-th teaches the i-th, give as many of both"
        )
    axes = _axes(axes)
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
    """A value per layer, from layer 1: bars, the one of layer `marked` hatched, a black dash at each value of `before`.

    ValueError for a `before` of another length or a `marked` that is no layer.
    """
    if before is not None and len(before) != len(values):
        raise ValueError(f"before has {len(before)} values: give one per layer, {len(values)}")
    if marked is not None and not 1 <= marked <= len(values):
        raise ValueError(f"marked is {marked}: it must be a layer from 1 to {len(values)}")
    axes = _axes(axes)
    layers = np.arange(1, len(values) + 1)
    axes.bar(
        layers, values, color=colour, hatch=["//" if layer == marked else "" for layer in layers]
    )
    if before is not None:
        axes.hlines(before, layers - 0.4, layers + 0.4, color="black", linewidth=2)
    axes.set(title=title, xlabel="layer", ylabel=y, xticks=layers)
    axes.grid(visible=False, axis="x")
    return axes
