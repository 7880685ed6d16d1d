"""Data judged by another metric than the usual one of their task."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tutelage.data.dataset import Data


def judged(data: Data, metric: str) -> Data:
    """Return the data with a task that is judged by another metric.

    They are other data to a run: another metric may choose another epoch.

    Args:
        data: The data.
        metric: The metric that chooses the epoch and compares rows, such as `macro-f1`; further ones that are only
            measured follow after `+`, as in `pearson+spearman`.

    Raises:
        UserError: If the task has no such metric, or it has no value for the data's number of classes.
    """
    names = [name.strip().replace("-", "_") for name in metric.split("+")]
    task = data.task.judged_by(names, outputs=data.num_classes)
    if task.metrics == data.task.metrics and task.primary == data.task.primary:
        return data
    fingerprint = hashlib.sha256(f"{data.fingerprint} judged by {' '.join(names)}".encode()).hexdigest()
    return replace(data, task=task, fingerprint=fingerprint)
