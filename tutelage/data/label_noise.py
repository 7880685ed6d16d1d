"""Labels that are wrong at random."""

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
    """Draw how far each label is moved, modulo the number of classes: 0 where it stays, whatever the label is.

    Under one state of the generator, a lower rate moves a subset of the labels.

    Args:
        count: Number of labels.
        rate: Probability that a label is drawn anew, from 0 to 1.
        num_classes: Number of classes.
        flips: Whether it is then drawn uniformly among `any` class, its own included, or among the `other` ones.
        chance: All chance comes from it; the device's own generator by default.
        device: Where to draw.

    Returns:
        int64 `[count]`, from 0 to below the number of classes.

    Raises:
        UserError: If the rate is no share, or there is no other class.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"A rate of {rate} of wrong labels is no share: give one from 0 to 1.")
    if num_classes < 2:
        raise UserError(f"With {num_classes} class no label can be wrong: noise takes two or more.")
    moved = torch.rand(count, generator=chance, device=device) < rate
    least = 0 if flips == "any" else 1
    return torch.randint(least, num_classes, (count,), generator=chance, device=device).where(moved, 0)


def with_wrong_labels(data: Data, rate: float, *, seed: int, flips: Flips = "any") -> Data:
    """Return data of which some training labels are wrong for good; validation and test keep theirs.

    Which ones depends on the seed and a sample's position alone.

    Args:
        data: The data.
        rate: As in `label_offsets`.
        seed: Decides all chance.
        flips: As in `label_offsets`.

    Raises:
        UserError: If the training data are a DataLoader, whose samples cannot be told apart, or as in `label_offsets`.
    """
    targets = training_labels(data)
    wrong = targets + label_offsets(len(targets), rate, data.num_classes, flips=flips, chance=generator(seed))
    # A sample without a label stays one.
    wrong = targets.where(targets == UNLABELLED, wrong % data.num_classes)
    digest = hashlib.sha256(data.fingerprint.encode() + wrong.numpy().tobytes())
    assert isinstance(data.train, Samples)
    return replace(data.with_splits(train=data.train.with_targets(wrong)), fingerprint=digest.hexdigest())


def training_labels(data: Data) -> Tensor:
    """Return the labels of all training samples, int64 `[sample]` on the CPU.

    Raises:
        UserError: If the training data are a DataLoader, whose samples cannot be told apart.
    """
    if isinstance(data.train, DataLoader):
        raise UserError(
            "Which label is wrong goes by a sample's position, which a DataLoader does not tell: pass the dataset "
            "instead, or draw for every batch anew (redraw=batch)."
        )
    if data.train.targets is None:
        raise UserError(f"The training samples of {data.name} have no labels.")
    return data.train.targets.cpu()
