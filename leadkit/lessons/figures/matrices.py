"""Matrices as colours, and a query's tokens against a passage's."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.patches import Rectangle

from leadkit.lessons.figures.plots import PALETTE, axes_or_new


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
        labels = [str(tick) for tick in (range(1, count + 1) if ticks is None else ticks)]
        axis.set_ticks(np.arange(count) + 0.5, labels, parse_math=False)
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
    """A matrix as colours, lighter is larger. NaN stays white.

    digits: decimals of the value that is printed in each cell; None: no values.
    top: the value of the lightest colour, the darkest is then 0; None: from the smallest value to
        the
        largest.
    """
    axes = axes_or_new(axes)
    mesh = _cells(matrix, x, y, xticks, yticks, top, axes)
    if digits is None:
        axes.figure.colorbar(mesh, ax=axes)
    else:
        lightness = np.asarray(mesh.norm(np.asarray(matrix)), float)  # of each cell, 0 to 1
        for (row, column), value in np.ndenumerate(matrix):
            if np.isnan(value):
                continue
            ink = "0.15" if lightness[row, column] > 0.7 else "white"
            axes.text(
                column + 0.5, row + 0.5, f"{value:.{digits}f}", color=ink, ha="center", va="center"
            )
    axes.set_title(title)
    return axes


def frame(axes: Axes, cells: Iterable[tuple[int, int]]) -> PatchCollection:
    """Frame cells of a `heat`: pairs of row and column, from 0. Returns the frames."""
    squares = [Rectangle((column, row), 1, 1) for row, column in cells]
    frames = PatchCollection(
        squares, facecolor="none", edgecolor=PALETTE[3], linewidth=2.5, clip_on=False
    )
    axes.add_collection(frames)
    return frames


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
    axes = axes_or_new(axes)
    _cells(products, "", "", passage, query, None, axes)
    frame(axes, enumerate(products.argmax(1)))
    axes.tick_params(labelsize=8)
    axes.tick_params(axis="x", rotation=90)
    axes.set_title(f"{title}: MaxSim {products.max(1).sum():.2f}", parse_math=False)
    return axes
