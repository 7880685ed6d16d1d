"""The class similarity that a teacher sees: how likely it takes one class for another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from tutelage.report.charts.canvas import BLUE, INK, Chart, draw, single

# The most classes for which there is room for names, and for numbers.
NAMED = 20
ANNOTATED = 12
# From clear to blue, so that the heat map stands on a light page as well as on a dark one.
CLEAR_TO_BLUE = LinearSegmentedColormap.from_list("clear_to_blue", [(*to_rgb(BLUE), 0.0), (*to_rgb(BLUE), 1.0)])
Matrix = NDArray[np.float64]


def matrix_of(value: object) -> Matrix | None:
    """Return a square matrix of at least two finite rows, its diagonal blanked, or nothing."""
    try:
        matrix = np.array(value, dtype=float)
    except (TypeError, ValueError):
        return None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2 or not np.isfinite(matrix).all():
        return None
    # The class itself is nearly always the likeliest, and would be all that the scale shows.
    np.fill_diagonal(matrix, np.nan)
    return matrix


def similar_pairs(matrix: Matrix, names: Sequence[str], *, most: int = 10) -> list[tuple[str, str, float]]:
    """Return the pairs of classes that are most alike, by the mean of both directions."""
    mutual = (matrix + matrix.T) / 2
    upper = np.triu_indices(len(matrix), 1)
    order = np.argsort(-mutual[upper], kind="stable")[:most]
    return [(names[upper[0][k]], names[upper[1][k]], float(mutual[upper][k])) for k in order]


def similarity_chart(matrix: Matrix, names: Sequence[str]) -> Chart:
    """Return the heat map without its diagonal, similar classes side by side."""
    order = _order(matrix)
    shown = 100 * matrix[np.ix_(order, order)]
    labels = [names[index] for index in order]
    is_named = len(labels) <= NAMED

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        image = _image(axes, shown)
        if is_named:
            axes.set_xticks(range(len(labels)), labels, rotation=90)
            axes.set_yticks(range(len(labels)), labels)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        axes.set_xlabel("class seen by the teacher")
        axes.set_ylabel("true class")
        if len(labels) <= ANNOTATED and not is_narrow:
            _annotate(axes, shown, image)
        else:
            bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.03, format="%g", label="similarity, %")
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)

    pairs = "; ".join(f"{a} and {b} {100 * value:.2f} %" for a, b, value in similar_pairs(matrix, names, most=5))
    alt = f"Heat map of the teacher's class similarity, {len(names)} classes. Most alike: {pairs}"
    return draw("similarity", alt, paint, wide=(620, 560), narrow=(360, 360))


def _order(matrix: Matrix) -> list[int]:
    mutual = np.nan_to_num((matrix + matrix.T) / 2)
    distance = mutual.max() - mutual
    np.fill_diagonal(distance, 0.0)
    # The best order of the leaves takes long to find, so with many classes any order of the tree will do.
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=len(matrix) <= 300)
    return [int(index) for index in leaves_list(tree)]


def _image(axes: Axes, shown: Matrix) -> AxesImage:
    # Few pairs are far more alike than the rest; a scale that ends at their level would drown all others.
    top = float(np.nanpercentile(shown, 99.5))
    low = min(0.0, float(np.nanmin(shown)))
    # The ends of a scale must differ, also where all values are equal.
    return axes.imshow(shown, cmap=CLEAR_TO_BLUE, vmin=low, vmax=max(top, low + 1e-12), interpolation="none")


def _annotate(axes: Axes, shown: Matrix, image: AxesImage) -> None:
    ends = image.get_clim()
    half = ((ends[0] or 0.0) + (ends[1] or 0.0)) / 2
    for (y, x), value in np.ndenumerate(shown):
        if np.isnan(value):
            axes.text(x, y, "·", ha="center", va="center", fontsize=14)
        # Anything less would be written as 0.0.
        elif abs(value) >= 0.05:
            ink = "#ffffff" if value > half else INK
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=9.5)
