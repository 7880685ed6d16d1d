"""Data whose test split comes from elsewhere, as where the training images were synthesised."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.data.class_names import are_names, listed, renumbered, tell_order
from tutelage.data.dataset import TEST, Data
from tutelage.data.ood import shaped
from tutelage.data.samples import Samples
from tutelage.data.sources import load_data
from tutelage.errors import UserError, notice


def with_test(data: Data, source: str | Data) -> Data:
    """Return data that are reported on by the test split of others, in the size and the channels of their own.

    Classes are matched by name. Where one of the two only numbers its classes, they are taken in their order.

    Args:
        data: The data to train on; a test split of their own is not used.
        source: The other data by name or path, or loaded.

    Raises:
        UserError: If they have no test split, or other classes.
    """
    if isinstance(source, str):
        # Only the test split is used, so nothing needs to be held out.
        source = load_data(source, task=data.task.name, validation=0)
    test = source.test
    if test is None:
        raise UserError(
            f"{source.name} has no test split: name data that have one, or hold one out of the training data."
        )
    if isinstance(test, DataLoader):
        raise UserError("Test data for data by name are a name or loaded data: a DataLoader is used as it is.")
    if "sample-labels" in data.task.offers and test.targets is not None:
        test = test.with_targets(_renumbered(test.targets, source, data))
    content = f"{data.fingerprint} tested on {source.fingerprint}"
    splits = {**data.splits, TEST: _of_size(test, source, data)}
    return replace(
        data,
        splits=splits,
        # Numbers say less than names, for the report and for the saved network.
        class_names=data.class_names if are_names(data.class_names) else source.class_names,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        unlabelled=(data.unlabelled - {TEST}) | (frozenset() if test.has_targets else {TEST}),
    )


def _of_size(test: Samples, source: Data, data: Data) -> Samples:
    if data.image_size and (test.channels, tuple(test.size)) != (data.in_channels, tuple(data.image_size)):
        height, width = data.image_size
        notice(
            f"The test images of {source.name} are brought to the {data.in_channels} channels and {height}x{width} "
            f"pixels of {data.name}."
        )
        return shaped(test, data)
    return test


def _renumbered(targets: Tensor, source: Data, data: Data) -> Tensor:
    own, names, where = source.class_names, data.class_names, f"the test split of {source.name}"
    if own == names:
        return targets
    if are_names(own) and are_names(names):
        if len(own) == len(names) and set(own) == set(names):
            tell_order(own, names, where=where)
        return renumbered(targets, own, names, where=where)
    if len(own) != len(names):
        raise UserError(
            f"{where.capitalize()} has {len(own)} classes, and {data.name} has {len(names)}: name test data of the "
            "same classes."
        )
    notice(
        f"{data.name} or {source.name} numbers its classes without naming them: they are taken in the same order, "
        f"{listed(own)}."
    )
    return targets
