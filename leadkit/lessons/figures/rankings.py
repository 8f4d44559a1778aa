"""Rankings of one query side by side."""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from leadkit.lessons.figures.plots import TEACHER, axes_or_new


def rank_lines(
    rankings: Mapping[str, Sequence[str]],
    title: str,
    relevant: Collection[str] = (),
    chosen: str | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Rankings of one query side by side, best on top.

    A line joins the ranks of the same passage in neighbouring columns.
    rankings: retriever -> passage ids, best first.
    relevant: passages with a colour and a star. chosen: the passage in bold.
    """
    axes = axes_or_new(axes)
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
