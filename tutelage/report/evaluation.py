"""What `tutelage evaluate` says."""

from __future__ import annotations

from tutelage.evaluation.scores import Evaluation


def evaluation_text(found: Evaluation, foreign: str | None = None) -> str:
    """Return the scores of a network or an ensemble, a line each.

    Args:
        found: The scores.
        foreign: What the foreign data are called, if there are any.
    """
    lines = []
    for name, value in found.scores.items():
        metric = found.metrics[name]
        against = f" ({foreign or 'foreign data'} told apart)" if name.startswith("foreign_") else ""
        lines.append(f"  {metric.title} {metric.text(value)}{against}")
    return "\n".join(lines)
