"""Rankings of one query side by side."""

from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from leadkit.lessons.figures.plots import axes_or_new

LONGEST = 21  # characters of a name


def rank_lines(
    rankings: Mapping[str, Sequence[str]],
    title: str,
    relevant: Collection[str] = (),
    chosen: str | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Rankings of one query side by side, best on top.

    A line follows each relevant passage, which has a star, and the chosen one, which is bold.
    Between two columns stands how many passages both have.
    rankings: retriever -> passage ids, best first; of a dotted id the last part is shown.
    """
    axes = axes_or_new(axes)
    columns, followed = list(rankings.values()), []
    depth = max(map(len, columns))
    for column, ids in enumerate(columns):
        for rank, passage in enumerate(ids, start=1):
            name = passage.rpartition(".")[2]
            name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
            axes.text(
                column,
                rank,
                f"★ {name}" if passage in relevant else name,
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if passage == chosen else "normal",
                parse_math=False,
            )
    for column, (left, right) in enumerate(zip(columns, columns[1:], strict=False)):
        both = [passage for passage in left if passage in right]
        axes.text(column + 0.5, depth + 1, f"{len(both)} in both", ha="center", va="center")
        followed += [
            [(column + 0.4, left.index(passage) + 1), (column + 0.6, right.index(passage) + 1)]
            for passage in both
            if passage in relevant or passage == chosen
        ]
    axes.add_collection(LineCollection(followed, colors="0.15", linewidths=2))
    axes.set(
        ylabel="rank",
        xlim=(-0.5, len(columns) - 0.5),
        ylim=(depth + 1.6, 0.4),
        yticks=range(1, depth + 1),
    )
    axes.set_xticks(range(len(columns)), rankings)
    axes.set_title(title, parse_math=False)
    axes.grid(False)
    return axes
