"""The shared plots: one style, colour-blind-safe, readable from the last row. Each returns the Axes it drew on."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

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


# --- what the widgets of lessons 06 to 09 draw: small enough to be drawn again at every move


def _plain_titles(*panels: Axes) -> None:
    """Titles of panels side by side, at a fixed height: the search for a free one takes a third of the drawing."""
    for axes in panels:
        axes.set_title(axes.get_title(), fontsize="medium", y=1.01)


def _legend_below(axes: Axes) -> None:
    """One row under the axis's label: beside nothing that moves."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.23), ncols=len(axes.get_legend_handles_labels()[1]), fontsize="small",
                handletextpad=0.4, columnspacing=1, handlelength=1.6)


def training(log: Sequence[Mapping[str, float]], dev: Mapping[int, float] | None = None, title: str = "",
             steps: int | None = None) -> Axes:
    """The log of a training, one row per step: the parts of its loss and, where there are any, the layer weights w1 .. wK.

    dev: step -> MRR@10 in percent, where it was measured. steps: of the whole training, the width of the panels.
    """
    frame = pd.DataFrame(log)
    # Not parts of a loss: the step, weights, and what MTA4DPR logs of its assistants.
    parts = [name for name in frame.filter(regex=r"^(?!(step|total|chosen|[wd]\d+)$)") if frame[name].any()]
    panels = [({name: smooth(frame[name]) for name in parts}, "Parts of the loss, running mean of ten", "nats", None)]
    if weights := list(frame.filter(regex=r"^w\d+$")):
        panels.append(({name: smooth(frame[name]) for name in weights}, "Layer weights, running mean of ten", "weight", None))
    if dev:
        panels.append(({"MRR@10": list(dev.values())}, "On a sample of dev", "percent", list(dev)))
    figure, drawn = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False)
    for axes, (columns, name, y, at) in zip(drawn[0], panels, strict=True):
        if columns:  # there has been a step
            lines(columns, name, "steps done", y, at=at, axes=axes)
            _legend_below(axes)
        axes.set_xlim(0, (steps or len(frame)) + 1)
    if dev:
        drawn[0, -1].set_ylim(min(dev.values()) - 2, max(dev.values()) + 2)  # a tenth of a point is no event
    _plain_titles(*drawn[0])
    figure.suptitle(title)
    figure.subplots_adjust(left=0.17 / len(panels), right=0.98, bottom=0.28, top=0.82, wspace=0.28)
    return drawn[0, 0]


VERDICTS = {"holds": (PALETTE[2], "o"), "contradicted": (PALETTE[3], "X"), "undecided": (PALETTE[7], "s")}


def verdicts(ledger: pd.DataFrame) -> Axes:
    """The claims of a `claims.ledger` that were run, one row each: our difference with its interval, the paper's as a diamond."""
    run = ledger[ledger["difference"].notna()]
    rows = max(2, len(run))
    height = 1.6 + 0.3 * rows  # inches
    axes = plt.subplots(figsize=(11, height))[1]
    y = pd.Series(range(len(run)), run.index)
    for verdict, (colour, marker) in VERDICTS.items():
        found = run[run["verdict"] == verdict]
        ends = np.maximum([found["difference"] - found["low"], found["high"] - found["difference"]], 0)  # NaN with one seed: none
        axes.errorbar(found["difference"], y[found.index], xerr=ends, fmt=marker, color=colour, capsize=3, markersize=8,
                      label=f"{verdict}: {len(found)}")
    axes.plot(run["paper"], y, "D", color=TEACHER, fillstyle="none", label="paper (MS MARCO passage)")
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlabel="points of MRR@10, positive: as claimed", yticks=y, yticklabels=run["claim"], ylim=(rows - 0.5, -0.5),
             title=f"{len(run)} of {len(ledger)} claims were run")
    axes.grid(visible=False, axis="y")
    _plain_titles(axes)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0), bbox_transform=axes.figure.transFigure, ncols=4, fontsize="small")
    axes.figure.subplots_adjust(left=0.5, right=0.97, bottom=1.15 / height, top=1 - 0.4 / height)
    return axes


def gaps(table: Mapping[str, Mapping[str, np.ndarray]], taught: Mapping[str, str], teacher: str, stage: str) -> Axes:
    """How far every student of a chain is from its teachers, and what one stage changed for one teacher, query by query.

    table: teacher -> student, in the order of the chain -> the gap on each query (Q,), nats. taught: stage -> its teacher.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2))
    students = list(table[teacher])
    now = students.index(stage)
    before, after = (table[teacher][name] for name in students[now - 1 : now + 1])  # (Q,)
    for colour, marker, (name, column) in zip(PALETTE, "os^Dv", table.items(), strict=False):
        means = [values.mean() for values in column.values()]
        left.plot(students, means, color=colour, marker=marker, linewidth=4 if name == teacher else 1.5, label=name)
        own = [i for i, student in enumerate(students) if taught.get(student) == name]
        left.plot(own, [means[i] for i in own], marker, color=colour, markersize=17, fillstyle="none", markeredgewidth=2)
        if name == teacher:
            right.plot(before, after, "o", color=colour, alpha=0.6)
    left.axvspan(now - 1, now, color="grey", alpha=0.2)
    left.set(title="Mean gap; a ring: who teaches this stage", ylabel="gap, nats")
    left.set_ylim(0, 1.15 * left.dataLim.y1)
    _legend_below(left)
    ends = [0, 1.05 * max(values.max() for column in table.values() for values in column.values())]
    right.plot(ends, ends, ":", color="black")
    right.set(title=f"{stage}: {(after < before).sum()} of {len(after)} nearer to the {teacher}", xlabel="gap before, nats",
              ylabel="gap after, nats", xlim=ends, ylim=ends)
    _plain_titles(left, right)
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.25, top=0.9, wspace=0.25)
    return left


def choices(far: np.ndarray, chosen: np.ndarray, names: Sequence[str], step: int, title: str) -> Axes:
    """Which assistant is chosen in every step, and at one of them, from 1, how far each is: far (F, steps), chosen (steps,)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 2), sharey=True)
    nearest, at = chosen[step - 1], np.arange(1, len(chosen) + 1)
    left.plot(at, chosen, "o", color=STUDENT)
    left.plot(step, nearest, "o", color=TEACHER, markersize=14)
    left.axvline(step, color=TEACHER, linewidth=1)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(title=title, xlabel="step", xlim=(0, len(chosen) + 1), yticks=range(len(names)), yticklabels=names,
             ylim=(len(names) - 0.5, -0.5))
    right.barh(range(len(names)), far[:, step - 1], color=[TEACHER if i == nearest else STUDENT for i in range(len(names))])
    right.plot(far.mean(1), range(len(names)), "|", color="black", markersize=18, markeredgewidth=2, zorder=3)
    right.set(title=f"Step {step}: {names[nearest]}", xlabel="distance (line: mean of all steps)",
              xlim=(0, 1.05 * far.max()))
    _plain_titles(left, right)
    figure.subplots_adjust(left=0.2, right=0.97, bottom=0.17, top=0.88, wspace=0.06)
    return left
