"""Label noise: labels that are replaced at random."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from tutelage.data.dataset import Data
from tutelage.data.samples import Samples
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED
from tutelage.system.chance import generator

Flips = Literal["any", "other"]


def label_offsets(
    count: int,
    rate: float,
    num_classes: int,
    *,
    flips: Flips = "any",
    chance: Generator | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw how far each label is moved, modulo the number of classes; 0 keeps it. The labels themselves are not needed.

    From the same state of the generator, a lower rate moves a subset of the labels.

    Args:
        count: Number of labels.
        rate: Probability that a label is drawn anew, from 0 to 1.
        num_classes: Number of classes.
        flips: The classes from which a new label is drawn uniformly: `any` includes its own, `other` does not.
        chance: The generator to draw from; the device's own by default.
        device: The device to draw on.

    Returns:
        int64 `[count]`, from 0 to below the number of classes.

    Raises:
        UserError: If the rate is not between 0 and 1, or there is only one class.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"The rate of wrong labels is {rate}: give a number from 0 to 1.")
    if num_classes < 2:
        raise UserError(f"With {num_classes} class no label can be wrong: label noise needs two classes or more.")
    # Drawn for every label, moved or not, so that a lower rate moves some of the same labels.
    moved = torch.rand(count, generator=chance, device=device) < rate
    # An offset of 0 is the label's own class.
    least = 0 if flips == "any" else 1
    return torch.randint(least, num_classes, (count,), generator=chance, device=device).where(moved, 0)


def with_wrong_labels(data: Data, rate: float, *, seed: int, flips: Flips = "any") -> Data:
    """Return the data with some training labels replaced, the same in every epoch. Other splits keep their labels.

    Which labels are replaced depends only on the seed and on the samples' positions.

    Args:
        data: The data.
        rate: Probability that a label is drawn anew, from 0 to 1.
        seed: Seed of all random numbers.
        flips: The classes from which a new label is drawn uniformly: `any` includes its own, `other` does not.

    Raises:
        UserError: If the training data are a DataLoader, whose samples have no positions, the rate is not between 0
            and 1, or there is only one class.
    """
    targets = training_labels(data)
    wrong = targets + label_offsets(len(targets), rate, data.num_classes, flips=flips, chance=generator(seed))
    # Unlabelled samples stay unlabelled.
    wrong = targets.where(targets == UNLABELLED, wrong % data.num_classes)
    # Other labels are other data, whose runs must not be taken for runs on these.
    digest = hashlib.sha256(data.fingerprint.encode() + wrong.numpy().tobytes())
    assert isinstance(data.train, Samples)
    return replace(data.with_splits(train=data.train.with_targets(wrong)), fingerprint=digest.hexdigest())


def training_labels(data: Data) -> Tensor:
    """Return the labels of all training samples, int64 `[sample]` on the CPU.

    Raises:
        UserError: If the training data are a DataLoader, whose samples have no positions, or have no labels.
    """
    if isinstance(data.train, DataLoader):
        raise UserError(
            "Wrong labels belong to the samples' positions, which a DataLoader does not tell: pass the dataset "
            "instead, or draw wrong labels for every batch (redraw=batch)."
        )
    if data.train.targets is None:
        raise UserError(f"The training samples of {data.name} have no labels.")
    return data.train.targets.cpu()
