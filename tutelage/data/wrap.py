"""A Python user's own datasets or DataLoaders as `Data`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import Data, Images, assemble
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.own import ForeignImages, ForeignLoader, find_targets
from tutelage.errors import UserError
from tutelage.system.chance import seeded


def as_data(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    num_classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    hold_out: float = 0.1,
    split_seed: int = 0,
    augment: str | None = None,
    name: str = "data",
) -> Data:
    """Bring a user's own objects into the form that training reads.

    Float tensors are passed to the network as they are; uint8 tensors, PIL and numpy images become floats in [0, 1].

    Args:
        train: A map-style dataset of (image, label), or a DataLoader of such batches, which is used as it is.
        validation: The same. None holds images out of a training dataset (with its transforms, so bring one of your
            own if those are random), and means none for a DataLoader.
        test: The same; None for none.
        num_classes: The number of classes; None counts them in the training labels.
        class_names: One name per class; None numbers them.
        hold_out: The fraction of a training dataset to hold out when `validation` is None; 0 for none.
        split_seed: Decides which images are held out.
        augment: What is done to training images on top of the dataset's own transforms, such as `"crop:4,flip"`; None
            for nothing.
        name: What the data are called in reports.

    Raises:
        UserError: If something is no dataset, or does not hold pairs of images and labels.
    """
    if class_names is not None:
        num_classes = len(class_names) if num_classes is None else num_classes
        if len(class_names) != num_classes:
            raise UserError(f"{len(class_names)} class names for {num_classes} classes: give one for each.")
    given = {"train": train, "validation": validation, "test": test}
    splits = {split: _wrapped(value) for split, value in given.items() if value is not None}
    augmentation = Augmentation() if augment is None else Augmentation.parse(augment)
    if isinstance(splits["train"], DataLoader) and augmentation:
        raise UserError("A DataLoader augments for itself: leave out augment=, or pass the dataset.")
    if any(isinstance(value, DataLoader) for value in splits.values()):
        loaded = _from_loaders(splits, num_classes, class_names, name)
        return replace(loaded, augmentation=augmentation, augmentation_chosen=augment is not None)
    images: dict[str, Images] = {split: value for split, value in splits.items() if not isinstance(value, DataLoader)}
    classes = _count(images["train"].targets) if num_classes is None else num_classes
    data = assemble(
        images,
        name=name,
        class_names=class_names or tuple(map(str, range(classes))),
        augmentation=augmentation,
        digest=_digest(images),
        validation=hold_out,
        test=None,
        split_seed=split_seed,
    )
    return replace(data, augmentation_chosen=augment is not None)


def _wrapped(value: Any) -> Images | DataLoader[Any]:
    known = isinstance(value, ResidentImages | StreamedImages | ForeignImages | DataLoader)
    return value if known else ForeignImages(value)


def _from_loaders(
    splits: Mapping[str, Images | DataLoader[Any]],
    num_classes: int | None,
    class_names: tuple[str, ...] | None,
    name: str,
) -> Data:
    train = splits["train"]
    if isinstance(train, DataLoader):
        first = next(iter(ForeignLoader(train).epoch(0)), None)
        if first is None:
            raise UserError("The training DataLoader yields no batch: give it data, or leave out drop_last.")
        channels, height, width = first.inputs.shape[1:]
    else:
        channels, (height, width) = train.channels, train.size
    if num_classes is None:
        num_classes = _count(_targets(train))
    return Data(
        name=name,
        train=train,
        validation=splits.get("validation"),
        test=splits.get("test"),
        num_classes=num_classes,
        class_names=class_names or tuple(map(str, range(num_classes))),
        in_channels=channels,
        image_size=(height, width),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        augmentation=Augmentation(),
        fingerprint=hashlib.sha256(
            repr([(split, len(value)) for split, value in splits.items()] + [num_classes, channels]).encode()
        ).hexdigest(),
    )


def _targets(train: Images | DataLoader[Any]) -> torch.Tensor:
    if not isinstance(train, DataLoader):
        return train.targets
    if isinstance(train.dataset, IterableDataset):
        raise UserError("The classes of this DataLoader cannot be counted beforehand: pass num_classes=.")
    with seeded(0):
        return find_targets(train.dataset)


def _count(targets: torch.Tensor) -> int:
    if int(targets.min()) < 0:
        raise UserError(f"The training labels hold {int(targets.min())}: number the classes from 0.")
    return int(targets.max()) + 1


def _digest(splits: Mapping[str, Images]) -> str:
    """Return what stands for the content: all labels, and the first image of each split."""
    digest = hashlib.sha256()
    for split, images in sorted(splits.items()):
        with seeded(0):
            first, _ = images[0]
        digest.update(f"{split} {len(images)} ".encode())
        digest.update(images.targets.cpu().contiguous().numpy().tobytes())
        digest.update(first.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
