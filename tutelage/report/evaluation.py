"""The text of `tutelage evaluate`."""

from __future__ import annotations

from tutelage.data.task import Metric
from tutelage.evaluation.scores import Evaluation
from tutelage.report.wording import as_value

FOREIGN = "foreign_"


def evaluation_text(found: Evaluation, foreign: str | None = None) -> str:
    """Return the scores of a network or an ensemble, one a line.

    Args:
        found: The scores.
        foreign: What the foreign data are called, if there are any.
    """
    lines = []
    for name, number in found.scores.items():
        metric = found.metrics.get(name) or Metric(title=name.replace("_", " "))
        title = f"{metric.title}, {foreign or 'foreign data'}" if name.startswith(FOREIGN) else metric.title
        # With as many digits as this number needs.
        lines.append((title, as_value(number, metric.fitted([number]))))
    width = max((len(title) for title, _ in lines), default=0)
    return "\n".join(f"  {title:<{width}}   {text}" for title, text in lines)
