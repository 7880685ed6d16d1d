"""Histograms of uncertainty, on test images and on foreign ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tutelage.report.charts.canvas import BLUE, VERMILLION, Chart, draw, single
from tutelage.report.reading import Comparison, block, number, numbers, picture
from tutelage.report.rows import Row

KINDS = ("total", "knowledge")


def uncertainty_charts(comparison: Comparison, entries: Sequence[Row]) -> list[tuple[str, str, Chart]]:
    """Return one histogram for each network and kind of uncertainty, with a caption and what it comes to in words.

    The teacher or ensemble comes first. A row is shown by its first seed, and its AUROC is the mean over the seeds.

    Args:
        comparison: The comparison.
        entries: Its rows.
    """
    return [
        (f"{label}: {kind}", words, _panel(index, f"{label}: {kind} uncertainty. {words}", bins))
        for index, (label, kind, words, bins) in enumerate(_found(comparison, entries))
    ]


def _found(comparison: Comparison, entries: Sequence[Row]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    teacher = block(comparison.get("teacher"))
    for kind, bins in _kinds(teacher):
        yield "teacher", kind, _words(number(teacher.get(f"foreign_auroc_{kind}"))), bins
    for row in entries:
        run = next((run for run in row.runs if block(picture(run, "uncertainty"))), {})
        for kind, bins in _kinds(run):
            area = row.best.get(f"foreign_auroc_{kind}")
            yield row.label, kind, _words(area.mean if area else None), bins


def _kinds(holder: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    kept = block(picture(holder, "uncertainty"))
    for kind in KINDS:
        bins = block(kept.get(kind))
        edges, counts = numbers(bins.get("edges")), numbers(bins.get("test"))
        # Bins have one edge more than counts; without a bin there is nothing to draw.
        if len(edges) == len(counts) + 1 > 1:
            yield kind, bins


def _words(area: float | None) -> str:
    return "" if area is None else f"AUROC {100 * area:.2f} %"


def _panel(index: int, alt: str, bins: Mapping[str, Any]) -> Chart:
    edges = np.array(numbers(bins.get("edges")))

    def paint(figure: Figure, is_narrow: bool) -> None:
        axes = single(figure)
        for split, colour in (("test", BLUE), ("foreign", VERMILLION)):
            counts = np.nan_to_num(np.array(numbers(bins.get(split))))
            if len(counts) == len(edges) - 1 and counts.sum() > 0:
                # In shares, because the two sets of images differ in size.
                axes.stairs(100 * counts / counts.sum(), edges, fill=True, color=colour, alpha=0.35)
                axes.stairs(100 * counts / counts.sum(), edges, color=colour, linewidth=1.4)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(bottom=0)
        axes.locator_params(nbins=3)
        axes.set_xlabel("uncertainty, nats")
        axes.set_ylabel("images, %")

    return draw(f"uncertainty{index}", alt, paint, wide=(240, 210))
