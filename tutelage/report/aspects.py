"""Single aspects of a comparison as Markdown tables: what an answer costs, what is uncertain."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.report.reading import Comparison, Estimate, block, number, rows
from tutelage.report.wording import ABSENT, count, decimal, estimate

UNCERTAINTY = {
    "test_total_uncertainty": "total",
    "test_data_uncertainty": "data",
    "test_knowledge_uncertainty": "knowledge",
    "test_prr": "PRR",
    "foreign_auroc_total": "AUROC total",
    "foreign_auroc_knowledge": "AUROC knowledge",
}


def answer_costs(comparison: Comparison) -> str:
    """Return the accuracy of every network of every row, and the multiply-adds of one answer.

    Args:
        comparison: A comparison of version 1.
    """
    lines = []
    for row in rows(comparison):
        own = [(row.deployed or "deployed" if row.members else "", row.multiply_adds, row.accuracy, row.best)]
        others = [(one.name, one.multiply_adds, one.best.get(row.metric), one.best) for one in row.members]
        for name, cost, accuracy, best in [*own, *others]:
            label = f"`{row.label}`" + (f" {name}" if name else "")
            nll = best.get("test_nll")
            lines.append([label, count(cost), estimate(accuracy), decimal(nll.mean if nll else None)])
    return _table(("Network", "Multiply-adds", "Accuracy %", "NLL"), lines)


def uncertainties(comparison: Comparison) -> str:
    """Return how uncertain the rows are on test images, and how well that tells foreign ones, the teacher first.

    Args:
        comparison: A comparison of version 1.
    """
    teacher = block(comparison.get("teacher"))
    scored = [("the teachers' ensemble", {key: number(teacher.get(key)) for key in ("test_accuracy", *UNCERTAINTY)})]
    for row in rows(comparison):
        scored.append((f"`{row.label}`", {key: _mean(row.best.get(key)) for key in ("test_accuracy", *UNCERTAINTY)}))
    lines = [
        [name, ABSENT if (right := found["test_accuracy"]) is None else f"{100 * (1 - right):.2f}"]
        + [decimal(found[key]) for key in UNCERTAINTY]
        for name, found in scored
    ]
    return _table(("", "Error %", *UNCERTAINTY.values()), lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|:--|" + "--:|" * (len(columns) - 1)
    return "\n".join([f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None
