"""What `tutelage evaluate` says."""

from __future__ import annotations

from tutelage.evaluation.scores import Evaluation


def evaluation_text(found: Evaluation, foreign: str | None = None) -> str:
    """Return the scores of a network or an ensemble in a few lines.

    Args:
        found: The scores.
        foreign: What the foreign data are called, if there are any.
    """
    lines = [
        f"accuracy {100 * found.accuracy:.2f} %   NLL {found.nll:.4f}   calibration error {100 * found.ece:.2f} %",
        "uncertainty in nats   " + "   ".join(f"{kind} {value:.4f}" for kind, value in found.uncertainty.items()),
    ]
    if found.rejection is not None:
        lines.append(f"errors found by total uncertainty (rejection ratio)   {100 * found.rejection:.1f} %")
    if found.foreign_auroc:
        areas = "   ".join(f"{kind} {100 * value:.1f} %" for kind, value in found.foreign_auroc.items())
        lines.append(f"{foreign or 'foreign data'} told apart (AUROC)   {areas}")
    return "\n".join(f"  {line}" for line in lines)
