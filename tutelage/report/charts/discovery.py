"""What the report shows of novel class discovery alone: which cluster holds which novel class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tutelage.report.charts.canvas import INK, Chart, draw, single
from tutelage.report.charts.similarity import CLEAR_TO_BLUE, NAMED
from tutelage.report.reading import Comparison, block, picture
from tutelage.report.rows import Row
from tutelage.report.sections import Panel, Section

TERMS = (
    "All acc. is the accuracy over all classes at once, where nobody says whether an image is of a novel class. Known "
    "is the accuracy on known classes, among these. Novel is the clustering accuracy on novel classes, among the novel "
    "outputs: each is matched to one class, by the Hungarian method. NMI and ARI compare the same clusters with the "
    "classes. Higher is better for all of them."
)
# More classes than this have no room for numbers.
ANNOTATED = 10
MOST = 8
_TRAINING = "test-training_novel_accuracy"
Matrix = NDArray[np.float64]


def sections(comparison: Comparison, entries: Sequence[Row]) -> list[Section]:
    """Return what there is to draw of novel class discovery.

    Args:
        comparison: The comparison.
        entries: Its rows.
    """
    names = [str(name) for name in block(comparison.get("task")).get("hidden") or []]
    found = [(row, matrix) for row in entries if (matrix := clusters_of(row)) is not None]
    panels = [
        Panel(clusters_chart(f"clusters-{number}", row.label, matrix, names), row.label, _words(row))
        for number, (row, matrix) in enumerate(islice(found, MOST))
    ]
    if not panels:
        return []
    left_out = f" The first {MOST} of {len(found)} rows are drawn." if len(found) > MOST else ""
    return [
        Section(
            id="clusters",
            name="Novel classes",
            title="Which cluster holds which novel class",
            lede="Of the test images of each novel class, the share in each cluster, in per cent; all seeds together. "
            "Clusters are ordered so that the one that is matched to a class stands on the diagonal. In training, no "
            f"image of these classes has a label.{left_out}",
            panels=panels,
        )
    ]


def clusters_of(row: Row) -> Matrix | None:
    """Return the share of each novel class in each matched cluster, over the seeds of a row; None if there is none."""
    found = []
    for run in row.runs:
        try:
            counts = np.array(picture(run, "clusters"), dtype=float)
        except (TypeError, ValueError):
            continue
        if counts.ndim == 2 and counts.shape[0] == counts.shape[1] and len(counts) and np.isfinite(counts).all():
            found.append(counts)
    found = [counts for counts in found if counts.shape == found[0].shape]
    if not found:
        return None
    total = np.sum(found, axis=0)
    shares: Matrix = total / np.maximum(total.sum(1, keepdims=True), 1)
    return shares


def clusters_chart(name: str, label: str, shares: Matrix, names: Sequence[str]) -> Chart:
    """Return the heat map of a row's clusters.

    Args:
        name: A name that no other chart of the page has.
        label: The row's label.
        shares: The share of each class in each cluster, `[class, cluster]`.
        names: The names of the classes; empty if they are not known.
    """
    called = list(names) if len(names) == len(shares) else [f"class {number}" for number in range(1, len(shares) + 1)]

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.imshow(100 * shares, cmap=CLEAR_TO_BLUE, vmin=0, vmax=100, interpolation="none")
        if len(called) <= NAMED:
            axes.set_xticks(range(len(called)), [str(number) for number in range(1, len(called) + 1)])
            axes.set_yticks(range(len(called)), called)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        axes.set_xlabel("cluster, in the order of the matched classes")
        if len(called) <= ANNOTATED:
            for (row, column), share in np.ndenumerate(shares):
                ink = "#ffffff" if share > 0.5 else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=10)

    right = "; ".join(f"{one} {100 * share:.0f} %" for one, share in islice(zip(called, shares.diagonal()), 10))
    alt = f"Heat map of novel classes and clusters of {label}. In the matched cluster: {right}"
    return draw(name, alt, paint, wide=(260, 250))


def _words(row: Row) -> str:
    """Return what the clusters come to, in words."""
    said = []
    if (test := row.best.get("test_novel_accuracy")) is not None:
        said.append(f"{100 * test.mean:.1f} % of test images")
    if (training := row.best.get(_TRAINING)) is not None:
        said.append(f"{100 * training.mean:.1f} % of training images")
    return f"in the matched cluster: {', '.join(said)}" if said else ""
