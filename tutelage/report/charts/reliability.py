"""Reliability diagrams: how often answers of a given confidence are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tutelage.report.charts.canvas import BLUE, GRID, MUTED, Chart, draw, single
from tutelage.report.reading import block, numbers, picture
from tutelage.report.rows import Row


@dataclass(frozen=True)
class Reliability:
    """Mean confidence and accuracy of the filled bins, pooled over the seeds of a row."""

    row: Row
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]


def reliability(row: Row) -> Reliability | None:
    """Return the pooled bins of a row, or nothing when no run kept them."""
    kept = []
    for run in row.runs:
        bins = [numbers(block(picture(run, "reliability")).get(key)) for key in ("confidence", "accuracy", "count")]
        if bins[0] and len({len(values) for values in bins}) == 1:
            # An empty bin has no mean; it holds no images, and so weighs nothing.
            kept.append(np.nan_to_num(np.array(bins)))
    # Runs with another number of bins cannot be pooled with the first.
    kept = [bins for bins in kept if bins.shape == kept[0].shape]
    if not kept:
        return None
    stacked = np.stack(kept)
    count = stacked[:, 2].sum(0)
    filled = count > 0
    if not filled.any():
        return None
    weight = stacked[:, 2][:, filled]
    # Weighted by images, so that the pooled bin is that of all images together.
    confidence, accuracy = ((stacked[:, index][:, filled] * weight).sum(0) / count[filled] for index in (0, 1))
    return Reliability(row, confidence, accuracy, count[filled] / count.sum())


def reliability_charts(entries: Sequence[Row], words: Mapping[str, str]) -> list[tuple[str, Chart]]:
    """Return one diagram per row, each against the baseline, with the row's label.

    Args:
        entries: The rows.
        words: What each row's diagram comes to in words, by the row's label.
    """
    found = [bins for row in entries if (bins := reliability(row))]
    by_label = {bins.row.label: bins for bins in found}
    return [
        (label, _panel(index, bins, by_label.get(bins.row.reference or ""), words.get(label, "")))
        for index, bins in enumerate(found)
        for label in [bins.row.label]
    ]


def _panel(index: int, bins: Reliability, baseline: Reliability | None, words: str) -> Chart:
    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        axes.plot([0, 100], [0, 100], color=GRID, linewidth=1.4)
        if baseline is not None and baseline is not bins:
            axes.plot(100 * baseline.confidence, 100 * baseline.accuracy, "--", color=MUTED, linewidth=1.4)
        _points(axes, bins)
        axes.set_xlim(-2, 102)
        axes.set_ylim(-2, 102)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.set_aspect("equal")
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("accuracy, %")

    alt = f"Reliability diagram of {bins.row.label}. {words}"
    return draw(f"reliability{index}", alt, paint, wide=(240, 230))


def _points(axes: Axes, bins: Reliability) -> None:
    axes.plot(100 * bins.confidence, 100 * bins.accuracy, "-", color=BLUE, linewidth=1.6)
    # The area of a dot is its share of the images; the smallest is still to be seen.
    sizes = 8 + 110 * bins.share / bins.share.max()
    axes.scatter(100 * bins.confidence, 100 * bins.accuracy, s=sizes, color=BLUE, alpha=0.75, linewidth=0, zorder=3)
