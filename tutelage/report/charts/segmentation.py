"""What the report shows of segmentation alone: how well each class is found, and images beside what was answered."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.report.charts.class_scores import LOOKS, class_scores_chart
from tutelage.report.charts.strips import MOST_NETWORKS, Column, strip_chart
from tutelage.report.reading import Comparison, block, numbers, picture
from tutelage.report.rows import Row
from tutelage.report.sections import Panel, Section

TERMS = (
    "IoU of a class is the intersection over union of the pixels that are of the class and those that are answered "
    "with it, over all images in one count; mIoU is its mean over the classes. Higher is better for both, and for "
    "pixel accuracy, the share of pixels that are right."
)


def sections(comparison: Comparison, entries: Sequence[Row]) -> list[Section]:
    """Return what there is to draw of segmentation.

    Args:
        comparison: The comparison.
        entries: Its rows.
    """
    found = [_by_class(comparison, entries), _strip(comparison, entries)]
    return [section for section in found if section]


def _by_class(comparison: Comparison, entries: Sequence[Row]) -> Section | None:
    names = _names(comparison)
    networks = {"teacher": [numbers(picture(block(comparison.get("teacher")), "iou"))]}
    networks |= {row.label: [numbers(picture(run, "iou")) for run in row.runs] for row in entries}
    scores = {}
    for label, seeds in networks.items():
        whole = [values for values in seeds if len(values) == len(names)]
        if whole:
            scores[label] = [_mean([values[index] for values in whole]) for index in range(len(names))]
    if not scores or not names:
        return None
    return Section(
        id="classes",
        name="IoU per class",
        title="IoU of each class",
        lede="Over the pixels of all test images together; means over the seeds. A class that is neither in the masks "
        "nor among the answers has none. Small and rare classes count as much in the mean as large ones."
        + _left_out(len(scores), len(LOOKS)),
        panels=[Panel(class_scores_chart("classes", "IoU", scores, names))],
    )


def _strip(comparison: Comparison, entries: Sequence[Row]) -> Section | None:
    columns = [Column("teacher", block(picture(block(comparison.get("teacher")), "maps")))]
    columns += [Column(row.label, block(picture(row.runs[0], "maps"))) for row in entries if row.runs]
    samples = [block(one) for one in block(comparison.get("data")).get("shown") or []]
    chart = strip_chart(samples, columns, _names(comparison))
    if chart is None:
        return None
    return Section(
        id="answers",
        name="Answers",
        title="What the networks see",
        lede="A few test images, their masks, and the class that each network answers each pixel with; of each row, "
        "the first seed. The images are spread over the test split, and were not chosen by what comes out."
        + _left_out(sum(bool(column.maps) for column in columns), MOST_NETWORKS),
        panels=[Panel(chart)],
    )


def _left_out(networks: int, shown: int) -> str:
    """Return a sentence if there are more networks than are drawn."""
    return f" The first {shown} of {networks} networks are drawn." if networks > shown else ""


def _names(comparison: Comparison) -> list[str]:
    return [str(name) for name in block(comparison.get("data")).get("class_names") or []]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
