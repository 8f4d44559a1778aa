"""Differences with their intervals beside the paper's: claims and verdicts."""

from collections.abc import Collection
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from leadkit.lessons.figures.plots import PALETTE, STUDENT, TEACHER, plain_titles

LIMIT = 2.0  # points: the axis of a claim goes so far on both sides, unless told otherwise
PAPER = "paper (MS MARCO passage)"
VERDICTS = {
    "holds": (PALETTE[2], "o"),
    "smaller than the paper's": (PALETTE[2], "v"),
    "ruled out": (PALETTE[4], "P"),
    "contradicted": (PALETTE[3], "X"),
    "undecided": (PALETTE[7], "s"),
}


def differences(
    table: pd.DataFrame, title: str, teachers: Collection[str] = (), limit: float = LIMIT
) -> Axes:
    """A row per line of the table: our difference with its interval, the paper's as a diamond.

    table: row -> difference, low, high, and paper where the paper has one; points.
    teachers: the rows about a teacher, which have its colour; the others are about a student.
    limit: points; the axis ends there on both sides. What lies beyond stands beside it as a number.
    """
    axes = _rows(table.index, limit)
    y = pd.Series(range(len(table)), table.index)
    about = {"student": ~table.index.isin(teachers), "teacher": table.index.isin(teachers)}
    for who, (marker, colour) in {"student": ("o", STUDENT), "teacher": ("s", TEACHER)}.items():
        lines = table[about[who]]
        if len(lines):
            label = f"{who}, 95% interval"
            _intervals(axes, lines, y[lines.index], fmt=marker, color=colour, label=label)
    _beyond(axes, table)
    axes.set(title=title, xlabel="points of MRR@10")
    _legend(axes, 3)
    return axes


def primary(ledger: pd.DataFrame) -> Axes:
    """The primary claims of a `claims.ledger` that were run, on an axis with room for all."""
    lines = ledger[(ledger["family"] == "primary") & (ledger["seeds"] > 0)]
    claims = lines["claim"].str.removeprefix("CB teacher: ").str.removesuffix(" (ours)")
    lines = lines.set_index(claims + ": " + lines["verdict"])
    teachers = lines.index[lines.index.str.startswith("the CB teacher")]
    limit = max(LIMIT, np.ceil(lines[["low", "high"]].abs().to_numpy().max()))
    return differences(lines, "The primary claims: positive is as claimed", teachers, limit)


def verdicts(ledger: pd.DataFrame) -> Axes:
    """The claims of a `claims.ledger` that were run and are testable, a row each.

    Points are our differences with their intervals, diamonds the paper's.
    """
    judged = ledger["difference"].notna() & (ledger["verdict"] != "not testable")
    run = ledger[judged]
    axes = _rows(run["claim"])
    y = pd.Series(range(len(run)), run.index)
    for verdict, (colour, marker) in VERDICTS.items():
        lines = run[run["verdict"] == verdict]
        if len(lines):
            label = f"{verdict}: {len(lines)}"
            _intervals(axes, lines, y[lines.index], fmt=marker, color=colour, label=label)
    _beyond(axes, run)
    axes.set(
        xlabel="points, positive: as claimed",
        title=f"{len(run)} of {len(ledger)} claims could be judged",
    )
    _legend(axes, 4)
    return axes


def _rows(labels: pd.Index | pd.Series, limit: float = LIMIT) -> Axes:
    """Axes of `limit` points on both sides of zero, a row per label, the first on top."""
    rows = max(2, len(labels))
    height = 1.8 + 0.3 * rows  # inches
    axes = plt.subplots(figsize=(11, height))[1]
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlim=(-limit, limit), ylim=(rows - 0.5, -0.5))
    axes.set(yticks=range(len(labels)), yticklabels=labels)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize="small")
    axes.figure.subplots_adjust(left=0.46, right=0.86, bottom=1.35 / height, top=1 - 0.4 / height)
    return axes


def _intervals(axes: Axes, table: pd.DataFrame, y: Any, **style: Any) -> None:
    ends = [table["difference"] - table["low"], table["high"] - table["difference"]]
    axes.errorbar(
        table["difference"], y, xerr=np.maximum(ends, 0), capsize=3, markersize=8, **style
    )


def _beyond(axes: Axes, table: pd.DataFrame) -> None:
    """The paper's diamonds; right of the axes the numbers that lie outside of them."""
    limit = axes.get_xlim()[1]
    paper = table.get("paper", pd.Series(np.nan, table.index))
    inside = paper.abs() <= limit
    rows = np.arange(len(table), dtype=float)
    if inside.any():
        axes.plot(paper[inside], rows[inside], "D", color="black", fillstyle="none", label=PAPER)
    for row, ours, theirs in zip(rows, table["difference"], paper, strict=True):
        numbers = {"ours": ours, "paper": theirs}
        words = [f"{who} {value:+.1f}" for who, value in numbers.items() if abs(value) > limit]
        beside = axes.get_yaxis_transform()
        axes.text(
            1.02, float(row), ", ".join(words), va="center", fontsize="small", transform=beside
        )


def _legend(axes: Axes, columns: int) -> None:
    """Below the axes, where anything was drawn."""
    plain_titles(axes)
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.figure.transFigure,
        ncols=columns,
        fontsize="small",
    )
