"""A single aspect of a comparison as a Markdown table: what an answer costs."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.measured import measured_of
from tutelage.report.reading import Comparison
from tutelage.report.rows import rows
from tutelage.report.wording import count, estimate, heading, mean_of, sentence, short


def answer_costs(comparison: Comparison, others: Sequence[str] = ()) -> str:
    """Return what every network of every row scores, and the multiply-adds of one answer.

    Args:
        comparison: A comparison of version 1.
        others: Names of further metrics to show.
    """
    measured = measured_of(comparison)
    shown = [(f"{measured.split}_{name}", measured.metrics[name]) for name in others]
    lines = []
    for row in rows(comparison):
        # The deployed network needs a name only where there are others beside it.
        own = [(row.deployed or "deployed" if row.members else "", row.multiply_adds, row.best)]
        for name, cost, best in [*own, *((one.name, one.multiply_adds, one.best) for one in row.members)]:
            label = f"`{row.label}`" + (f" {name}" if name else "")
            further = [mean_of(best.get(score), metric) for score, metric in shown]
            lines.append([label, count(cost), estimate(best.get(measured.score), measured.metric), *further])
    first = heading(sentence(measured.metric.title), measured.metric)
    return table(("Network", "Multiply-adds", first, *(heading(short(metric), metric) for _, metric in shown)), lines)


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first column to the left and the others to the right."""
    # Markdown aligns a column by the colons of this line.
    rule = "|:--|" + "--:|" * (len(columns) - 1)
    return "\n".join([f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])
