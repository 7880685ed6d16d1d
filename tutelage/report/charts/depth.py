"""What the report shows of depth alone: images beside what was answered, and where each answer is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.charts.depth_strips import depth_strip_chart
from tutelage.report.charts.strips import MOST_NETWORKS, Column
from tutelage.report.reading import Comparison, block, picture
from tutelage.report.rows import Row
from tutelage.report.sections import Panel, Section

TERMS = (
    "AbsRel is the absolute error divided by the true depth, RMSE the root of the mean squared error in metres, and "
    "log10 the mean difference of the logarithms to base 10: lower is better for these. δ<1.25 is the share of pixels "
    "whose depth is right within a factor of 1.25: higher is better. All are means over the pixels of all images "
    "together, where the true depth is known; many authors average the means of the images instead."
)


def sections(comparison: Comparison, entries: Sequence[Row]) -> list[Section]:
    """Return what there is to draw of depth.

    Args:
        comparison: The comparison.
        entries: Its rows.
    """
    columns = [Column("teacher", block(picture(block(comparison.get("teacher")), "maps")))]
    columns += [Column(row.label, block(picture(row.runs[0], "maps"))) for row in entries if row.runs]
    samples = [block(one) for one in block(comparison.get("data")).get("shown") or []]
    chart = depth_strip_chart(samples, columns)
    if chart is None:
        return []
    there = sum(bool(column.maps) for column in columns)
    left_out = f" The first {MOST_NETWORKS} of {there} networks are drawn." if there > MOST_NETWORKS else ""
    return [
        Section(
            id="answers",
            name="Answers",
            title="What the networks see",
            lede="A few test images, their depths, and the depth that each network answers each pixel with; below "
            "each, how far it is from the truth. Of each row, the first seed. The images are spread over the test "
            f"split, and were not chosen by what comes out.{left_out}",
            panels=[Panel(chart)],
        )
    ]
