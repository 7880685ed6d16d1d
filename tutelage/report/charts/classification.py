"""What the report shows of classification alone: class similarity, reliability and uncertainty, each with its words."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.aspects import table
from tutelage.report.charts.reliability import reliability_charts
from tutelage.report.charts.similarity import matrix_of, similar_pairs, similarity_chart
from tutelage.report.charts.uncertainty import uncertainty_charts
from tutelage.report.reading import Comparison, block, number, picture
from tutelage.report.rows import Row, baseline_of, rows
from tutelage.report.sections import Listing, Panel, Section

TERMS = (
    "NLL is the mean negative log-likelihood of the true class and ECE the expected calibration error; lower is better "
    "for both."
)
# The most pairs of classes in the listing.
PAIRS = 10
# Scores by their names in a comparison, and the heads of their columns.
UNCERTAINTY = {
    "test_total_uncertainty": "total",
    "test_data_uncertainty": "data",
    "test_knowledge_uncertainty": "knowledge",
    "test_prr": "PRR",
    "foreign_auroc_total": "AUROC total",
    "foreign_auroc_knowledge": "AUROC knowledge",
}


def sections(comparison: Comparison, entries: Sequence[Row]) -> list[Section]:
    """Return what there is to draw of classification.

    Args:
        comparison: The comparison.
        entries: Its rows.
    """
    found = [_similarity(comparison), _reliability(entries), _uncertainty(comparison, entries)]
    return [section for section in found if section]


def uncertainties(comparison: Comparison) -> str:
    """Return how uncertain the rows are on test images, and how well this tells foreign ones; the teacher first.

    Args:
        comparison: A comparison of version 1.

    Returns:
        A Markdown table.
    """
    teacher = block(comparison.get("teacher"))
    scored = [("the teachers' ensemble", {key: number(teacher.get(key)) for key in ("test_accuracy", *UNCERTAINTY)})]
    for row in rows(comparison):
        # A row has a mean over seeds; the teacher has a plain number.
        means = {key: found.mean for key, found in row.best.items()}
        scored.append((f"`{row.label}`", {key: means.get(key) for key in ("test_accuracy", *UNCERTAINTY)}))
    lines = [
        [name, "–" if (right := found["test_accuracy"]) is None else f"{100 * (1 - right):.2f}"]
        + ["–" if (value := found[key]) is None else f"{value:.3f}" for key in UNCERTAINTY]
        for name, found in scored
    ]
    return table(("", "Error %", *UNCERTAINTY.values()), lines)


def _similarity(comparison: Comparison) -> Section | None:
    matrix = matrix_of(picture(block(comparison.get("teacher")), "class_similarity"))
    if matrix is None:
        return None
    names = [str(name) for name in block(comparison.get("data")).get("class_names") or []]
    # Names that do not fit would stand beside the wrong classes.
    if len(names) != len(matrix):
        names = [f"class {index}" for index in range(len(matrix))]
    pairs = similar_pairs(matrix, names, most=PAIRS)
    lines = [(f"{first} – {second}", f"{100 * value:.2f}") for first, second, value in pairs]
    return Section(
        id="similarity",
        name="Class similarity",
        title="What the teacher knows beyond the labels",
        lede="How strongly the teacher sees the class of each column in images of the class of each row: its mean "
        "softened probability, in per cent. This is the knowledge that a label leaves out. The diagonal is left blank "
        "so that the rest is visible; similar classes stand side by side.",
        panels=[Panel(similarity_chart(matrix, names))],
        listing=Listing("Most alike", ("Classes", "Similarity, %"), lines),
    )


def _reliability(entries: Sequence[Row]) -> Section | None:
    words = {row.label: f"ECE {100 * ece.mean:.2f} %" for row in entries if (ece := row.best.get("test_ece"))}
    panels = [Panel(chart, label, words.get(label, "")) for label, chart in reliability_charts(entries, words)]
    dashed = " Dashed: the baseline." if len(panels) > 1 and baseline_of(entries) else ""
    lede = (
        "How often the student is right at each confidence. On the diagonal it is exactly as sure as it should be; "
        f"below it, too sure. Larger dots hold more images.{dashed}"
    )
    return Section("reliability", "Reliability", "Reliability", lede, panels) if panels else None


def _uncertainty(comparison: Comparison, entries: Sequence[Row]) -> Section | None:
    panels = [Panel(chart, label, words) for label, words, chart in uncertainty_charts(comparison, entries)]
    name = str(block(block(comparison.get("data")).get("foreign")).get("name") or "")
    foreign = (
        f" Blue: test images. Red: {name}, whose images no network has learned. AUROC is how often the foreign image "
        "of a pair is the more uncertain one; 50 % is chance."
    )
    lede = (
        "How uncertain the answers are: in all (total), and from a lack of knowledge, which an ensemble or a Dirichlet "
        f"distribution can tell from classes that overlap.{foreign if name else ''} The last bar also counts all "
        "larger values."
    )
    return Section("uncertainty", "Uncertainty", "Uncertainty", lede, panels) if panels else None
