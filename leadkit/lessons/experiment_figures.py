"""What lessons 06 to 09 draw, in widgets too: small enough to be drawn again at every move. Each returns an Axes it drew on."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from leadkit.lessons.figures import PALETTE, STUDENT, TEACHER, lines, smooth


def _plain_titles(*panels: Axes) -> None:
    """Titles of panels side by side, at a fixed height: the search for a free one takes a third of the drawing."""
    for axes in panels:
        axes.set_title(axes.get_title(), fontsize="medium", y=1.01)


def _legend_below(axes: Axes) -> None:
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


def training(
    log: Sequence[Mapping[str, float]],
    dev: Mapping[int, float] | None = None,
    title: str = "",
    steps: int | None = None,
) -> Axes:
    """The log of a training, one row per step: the parts of its loss and, where there are any, the layer weights w1 .. wK.

    dev: step -> MRR@10 in percent, where it was measured. steps: of the whole training, the width of the panels.
    """
    frame = pd.DataFrame(log)
    # Not parts of a loss: the step, weights, and what MTA4DPR logs of its assistants.
    parts = [
        name
        for name in frame.filter(regex=r"^(?!(step|total|chosen|[wd]\d+)$)")
        if frame[name].any()
    ]
    panels = [
        (
            {name: smooth(frame[name]) for name in parts},
            "Parts of the loss, running mean of ten",
            "nats",
            None,
        )
    ]
    if weights := list(frame.filter(regex=r"^w\d+$")):
        panels.append(
            (
                {name: smooth(frame[name]) for name in weights},
                "Layer weights, running mean of ten",
                "weight",
                None,
            )
        )
    if dev:
        panels.append(({"MRR@10": list(dev.values())}, "On a sample of dev", "percent", list(dev)))
    figure, drawn = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False)
    for axes, (columns, name, y, at) in zip(drawn[0], panels, strict=True):
        if columns:  # there has been a step
            lines(columns, name, "steps done", y, at=at, axes=axes)
            _legend_below(axes)
        axes.set_xlim(0, (steps or len(frame)) + 1)
    if dev:
        drawn[0, -1].set_ylim(
            min(dev.values()) - 2, max(dev.values()) + 2
        )  # a tenth of a point is no event
    _plain_titles(*drawn[0])
    figure.suptitle(title)
    figure.subplots_adjust(left=0.17 / len(panels), right=0.98, bottom=0.28, top=0.82, wspace=0.28)
    return drawn[0, 0]


VERDICTS = {
    "holds": (PALETTE[2], "o"),
    "contradicted": (PALETTE[3], "X"),
    "undecided": (PALETTE[7], "s"),
}


def verdicts(ledger: pd.DataFrame) -> Axes:
    """The claims of a `claims.ledger` that were run, one row each: our difference with its interval, the paper's as a diamond."""
    run = ledger[ledger["difference"].notna()]
    rows = max(2, len(run))
    height = 1.6 + 0.3 * rows  # inches
    axes = plt.subplots(figsize=(11, height))[1]
    y = pd.Series(range(len(run)), run.index)
    for verdict, (colour, marker) in VERDICTS.items():
        found = run[run["verdict"] == verdict]
        ends = np.maximum(
            [found["difference"] - found["low"], found["high"] - found["difference"]], 0
        )  # NaN with one seed: none
        axes.errorbar(
            found["difference"],
            y[found.index],
            xerr=ends,
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=8,
            label=f"{verdict}: {len(found)}",
        )
    axes.plot(
        run["paper"], y, "D", color=TEACHER, fillstyle="none", label="paper (MS MARCO passage)"
    )
    axes.axvline(0, color="black", linewidth=1)
    axes.set(
        xlabel="points of MRR@10, positive: as claimed",
        yticks=y,
        yticklabels=run["claim"],
        ylim=(rows - 0.5, -0.5),
        title=f"{len(run)} of {len(ledger)} claims were run",
    )
    axes.grid(visible=False, axis="y")
    _plain_titles(axes)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.figure.transFigure,
        ncols=4,
        fontsize="small",
    )
    axes.figure.subplots_adjust(left=0.5, right=0.97, bottom=1.15 / height, top=1 - 0.4 / height)
    return axes


def agreement(ledger: pd.DataFrame, other: pd.DataFrame, names: tuple[str, str]) -> Axes:
    """The claims that were run for both ledgers: our differences with their intervals in the one and in the other, in the colours
    of the first one's verdicts. Dotted: where both say the same. names: of the two ledgers."""
    axes = plt.subplots(figsize=(7, 6), layout="constrained")[1]
    both = ledger.merge(other, left_index=True, right_index=True, suffixes=("", " other"))
    both = both.dropna(subset=["difference", "difference other"])
    for verdict, (colour, marker) in VERDICTS.items():
        found = both[both["verdict"] == verdict]
        across, up = (
            [
                np.maximum(found[f"difference{of}"] - found[f"low{of}"], 0),
                np.maximum(found[f"high{of}"] - found[f"difference{of}"], 0),
            ]
            for of in ("", " other")
        )
        axes.errorbar(
            found["difference"],
            found["difference other"],
            xerr=across,
            yerr=up,
            fmt=marker,
            color=colour,
            elinewidth=1,
            markersize=8,
            label=f"{names[0]}: {verdict}",
        )
    axes.axline((0, 0), slope=1, linestyle=":", color="black")
    axes.axvline(0, color="black", linewidth=1)
    axes.axhline(0, color="black", linewidth=1)
    axes.set(
        xlabel=f"{names[0]}: points of MRR@10",
        ylabel=f"{names[1]}: points of MRR@10",
        title=f"{len(both)} claims, twice",
    )
    axes.legend(loc="upper left", fontsize="small")
    return axes


def gaps(
    table: Mapping[str, Mapping[str, np.ndarray]],
    taught: Mapping[str, str],
    teacher: str,
    stage: str,
) -> Axes:
    """How far every student of a chain is from its teachers, and what one stage changed for one teacher, query by query.

    table: teacher -> student, in the order of the chain -> the gap on each query (Q,), nats. taught: stage -> its teacher.
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
    _legend_below(left)
    ends = [0, 1.05 * max(values.max() for column in table.values() for values in column.values())]
    right.plot(ends, ends, ":", color="black")
    right.set(
        title=f"{stage}: {(after < before).sum()} of {len(after)} nearer to the {teacher}",
        xlabel="gap before, nats",
        ylabel="gap after, nats",
        xlim=ends,
        ylim=ends,
    )
    _plain_titles(left, right)
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.25, top=0.9, wspace=0.25)
    return left


def choices(
    far: np.ndarray, chosen: np.ndarray, names: Sequence[str], step: int, title: str
) -> Axes:
    """Which assistant is chosen in every step, and at one of them, from 1, how far each is: far (F, steps), chosen (steps,)."""
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
    _plain_titles(left, right)
    figure.subplots_adjust(left=0.2, right=0.97, bottom=0.17, top=0.88, wspace=0.06)
    return left
