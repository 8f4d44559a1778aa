"""Results: tables, costs, the map of conditions, the size of the student's scores."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from leadkit.experiments.conditions import STEPS, TAU_L, TEACHERS, point
from leadkit.lessons.figures.plots import NEUTRAL, STUDENT, TEACHER, bars, plain_titles
from leadkit.results.score_sizes import EFFECTS

# How each effect of `score_sizes` is drawn: line, colour, and by how much it stands aside.
DRAWN = list(zip(("o-", "s--", "^:"), NEUTRAL[:3], (0.95, 1.0, 1.05), strict=True))


def main_table(table: pd.DataFrame) -> Axes:
    """The first measure of `tables.summarise`, its standard deviation over seeds, the paper's.

    Teachers and students have their colours, what is neither is grey.
    """
    measure = str(table.columns[0])
    values = table[measure].to_dict()
    spread = table["sd"].fillna(0).to_dict()
    axes = bars(
        values,
        "Main table: ours, and the paper's on another collection",
        f"{measure}, percent",
        errors={row: (v - spread[row], v + spread[row]) for row, v in values.items()}
        if any(spread.values())
        else None,
        paper=table[f"paper {measure}"].dropna().to_dict(),
    )
    for y, (bar, (row, value)) in enumerate(zip(axes.patches, values.items(), strict=True)):
        kind = TEACHER if str(row).startswith("teacher") else STUDENT
        bar.set_facecolor("0.7" if row in ("BM25", "12DE (mines)") else kind)
        ink = "black" if bar.get_facecolor()[:3] != STUDENT else "white"
        axes.annotate(f"{value:.1f}", (0.3, y), va="center", color=ink, fontsize="small")
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_size_inches(9, 5)
    return axes


def against_cost(table: pd.DataFrame, title: str, value: str, costs: Mapping[str, str]) -> Axes:
    """A value with its interval, and beside it what its training cost: a row each, cheapest on top.

    table: with the columns value, low, high, and one per cost.
    value: the label of the value. costs: column -> its label. The first one orders the rows.
    Returns the panel of the values. ValueError where a column or a number is missing, or a value is
    outside its interval.
    """
    columns = [*costs, "value", "low", "high"]
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"the table lacks {', '.join(missing)}: it must have the columns {', '.join(columns)}"
        )
    for name, row in table[columns].iterrows():
        known = np.isfinite(row[list(costs)]).all()
        if not (known and row["low"] <= row["value"] <= row["high"]):
            raise ValueError(
                f"the row of {name} is {row.to_dict()}: its costs must be numbers, its value one "
                "from low to high"
            )
    table = table.sort_values(list(costs), kind="stable")
    rows = np.arange(len(table))
    figure, panels = plt.subplots(
        1,
        1 + len(costs),
        figsize=(11, 1.5 + 0.4 * len(table)),
        width_ratios=[5, *(3 for _ in costs)],
        sharey=True,
        layout="constrained",
    )
    ends = [table["value"] - table["low"], table["high"] - table["value"]]
    panels[0].errorbar(table["value"], rows, xerr=ends, fmt="o", color=STUDENT, capsize=4)
    panels[0].set(xlabel=value, yticks=rows, yticklabels=table.index)
    panels[0].set_ylim(len(table) - 0.5, -0.5)
    for axes, (column, label) in zip(panels[1:], costs.items(), strict=True):
        bars_of_cost = axes.barh(rows, table[column], color="0.7")
        axes.bar_label(bars_of_cost, fmt="{:,.0f}", padding=3, fontsize="small")
        axes.set(xlabel=label, xticks=[])
        axes.margins(x=0.4)
        axes.grid(visible=False)
    figure.suptitle(title, fontweight="bold")
    return panels[0]


def condition_map(
    scales: Mapping[str, pd.DataFrame], effect: str = "frozen LEAD - RD"
) -> list[Axes]:
    """An effect of `condition_map.effects` over how far the teacher is ahead of its student.

    A panel per scale and number of steps that was run, a line per tau_l, a point per teacher.
    """
    run = [
        (scale, steps, {tau_l: _points(measured, effect, steps, tau_l) for tau_l in TAU_L})
        for scale, measured in scales.items()
        for steps in STEPS
    ]
    run = [each for each in run if any(map(len, each[2].values()))]
    figure = plt.figure(figsize=(4 * len(run) + 2, 4), layout="constrained")
    panels = figure.subplots(1, len(run), sharex=True, sharey=True, squeeze=False)[0]
    colours = sns.color_palette("crest", len(TAU_L))
    for axes, (scale, steps, lines) in zip(panels, run, strict=True):
        axes.axhline(0, color="black", linewidth=1)
        for i, (tau_l, line) in enumerate(lines.items()):
            ahead = line["ahead"] + 0.25 * (i - 1)  # side by side
            ends = [line["difference"] - line["low"], line["high"] - line["difference"]]
            style = {"fmt": "o-", "color": colours[i], "capsize": 3, "label": f"tau_l = {tau_l:g}"}
            axes.errorbar(ahead, line["difference"], yerr=ends, **style)
        axes.set(title=f"{scale}, {steps} steps", xlabel="teacher - student, as long; points")
    panels[0].set_ylabel(f"{effect}, points")
    panels[-1].legend(fontsize="small")
    plain_titles(*panels)
    return list(panels)


def _points(measured: pd.DataFrame, effect: str, steps: int, tau_l: float) -> pd.DataFrame:
    """The teachers in the order of `ahead`, their lead, with the effect and its interval."""
    names = [point(steps, teacher, tau_l) for teacher in TEACHERS]
    shown = measured.xs(effect, level="effect").reindex(names).dropna()
    lead = measured.xs("teacher - student, as long", level="effect")["difference"]
    return shown.assign(ahead=lead.reindex(shown.index)).sort_values("ahead")


def score_sizes(scales: Mapping[str, pd.DataFrame]) -> list[Axes]:
    """The effects of `score_sizes.effects` over the factor of the student's scores.

    A panel per scale, a line per effect, a point with its interval per factor.
    """
    panels = plt.subplots(
        1, len(scales), figsize=(5 * len(scales) + 1, 4), squeeze=False, layout="constrained"
    )[1][0]
    for axes, (scale, measured) in zip(panels, scales.items(), strict=True):
        axes.axhline(0, color="black", linewidth=1)
        for effect, (marker, colour, aside) in zip(EFFECTS, DRAWN, strict=True):
            if effect not in measured.index:
                continue
            line = measured.loc[effect]
            ends = [line["difference"] - line["low"], line["high"] - line["difference"]]
            style = {"fmt": marker, "color": colour, "capsize": 3, "label": effect}
            axes.errorbar(line.index * aside, line["difference"], yerr=ends, **style)
        factors = measured.index.unique("times").sort_values()
        axes.set_xscale("log", base=2)
        axes.set(xticks=factors, xticklabels=[f"x {times:g}" for times in factors])
        axes.set(title=scale, xlabel="the student's scores", ylabel="points of MRR@10")
    named = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    legend = {"loc": "outside lower center", "ncols": 3, "fontsize": "small"}
    panels[0].figure.legend(named.values(), named.keys(), **legend)
    plain_titles(*panels)
    return list(panels)
