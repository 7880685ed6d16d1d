"""Data with only some of a network's classes, for measuring the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.data.class_names import are_names, listed, renumbered
from tutelage.data.dataset import Data
from tutelage.data.samples import Samples
from tutelage.errors import notice


def among(data: Data, names: Sequence[str]) -> Data:
    """Return data with the classes of a network if they have some of them by name; otherwise unchanged.

    Args:
        data: The data.
        names: The network's classes.
    """
    few = set(data.class_names) < set(names) and are_names(names) and are_names(data.class_names)
    # A DataLoader is used as it is, so its labels cannot be renumbered.
    are_samples = all(isinstance(value, Samples) for value in data.splits.values())
    if not (few and are_samples and "sample-labels" in data.task.offers):
        return data
    splits = {
        split: value
        if value.targets is None
        else value.with_targets(renumbered(value.targets, data.class_names, names, where=f"the {split} split"))
        for split, value in data.splits.items()
        if isinstance(value, Samples)
    }
    lacking = [name for name in names if name not in data.class_names]
    notice(f"{data.name} does not have the network's classes {listed(lacking)}: the network is measured on the others.")
    return replace(data, splits=splits, class_names=tuple(names), num_classes=len(names))
