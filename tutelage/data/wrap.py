"""A Python user's own datasets or DataLoaders as `Data`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import TEST, TRAIN, Data, Split, assemble
from tutelage.data.fields import input_and_target
from tutelage.data.own import OwnLoader, as_samples, find_targets
from tutelage.data.samples import Samples
from tutelage.data.task import Task, task_named
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED
from tutelage.system.chance import seeded


def as_data(
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    *,
    task: str = "classification",
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
        train: A map-style dataset of (input, target), of mappings with both, or of inputs alone; or a DataLoader of
            such batches, which is used as it is.
        validation: The same. None holds samples out of a training dataset (with its transforms, so bring one of your
            own if those are random), and means none for a DataLoader.
        test: The same; None for none.
        task: What the targets are: `classification`, `multi-label`, `regression`, or `unlabelled` to hide those of the
            training samples.
        num_classes: The number of classes; None counts them in the labels.
        class_names: One name per class; None numbers them.
        hold_out: The fraction of a training dataset to hold out when `validation` is None; 0 for none.
        split_seed: Decides which samples are held out.
        augment: What is done to training images on top of the dataset's own transforms, such as `"crop:4,flip"`; None
            for nothing.
        name: What the data are called in reports.

    Raises:
        UserError: If something is no dataset, or its targets are not the task's.
    """
    kind = task_named(task)
    if class_names is not None:
        num_classes = len(class_names) if num_classes is None else num_classes
        if len(class_names) != num_classes:
            raise UserError(f"{len(class_names)} class names for {num_classes} classes: give one for each.")
    given = {"train": train, "validation": validation, "test": test}
    splits = {split: as_samples(value, kind) for split, value in given.items() if value is not None}
    augmentation = Augmentation() if augment is None else Augmentation.parse(augment)
    _check_augmentation(splits[TRAIN], augmentation)
    outputs = _outputs(splits, kind) if num_classes is None else num_classes
    names = class_names or tuple(map(str, range(outputs)))
    if any(isinstance(value, DataLoader) for value in splits.values()):
        loaded = _from_loaders(splits, kind, names, name)
        return replace(loaded, augmentation=augmentation, augmentation_chosen=augment is not None)
    samples = {split: value for split, value in splits.items() if isinstance(value, Samples)}
    data = assemble(
        samples,
        name=name,
        task=kind,
        class_names=names,
        augmentation=augmentation,
        digest=_digest(samples),
        validation=hold_out,
        test=None,
        split_seed=split_seed,
    )
    return replace(data, augmentation_chosen=augment is not None)


def _check_augmentation(train: Split, augmentation: Augmentation) -> None:
    if not augmentation:
        return
    if isinstance(train, DataLoader):
        raise UserError("A DataLoader augments for itself: leave out augment=, or pass the dataset.")
    if not train.size:
        raise UserError(f"{augmentation} is for images, and the inputs are none: leave out augment=.")


def _from_loaders(splits: Mapping[str, Split], task: Task, names: tuple[str, ...], name: str) -> Data:
    unlabelled = set()
    shapes = {}
    for split, value in splits.items():
        if isinstance(value, Samples):
            shapes[split] = (value.channels, value.size)
            is_labelled = value.targets is not None
        else:
            shapes[split], is_labelled = _look(value, task, split)
        unlabelled |= set() if is_labelled else {split}
        if task.hides_targets and is_labelled and isinstance(value, DataLoader) and split != TEST:
            raise UserError(
                f"The {split} DataLoader yields targets, and the task {task.name!r} has none: leave them out."
            )
    channels, size = shapes[TRAIN]
    facts = repr([(split, len(value)) for split, value in splits.items()] + [len(names), channels])
    return Data(
        name=name,
        splits=splits,
        task=task,
        num_classes=len(names),
        class_names=names,
        in_channels=channels,
        image_size=size,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        augmentation=Augmentation(),
        fingerprint=hashlib.sha256(task.salt + facts.encode()).hexdigest(),
        unlabelled=frozenset(unlabelled),
    )


def _look(loader: DataLoader[Any], task: Task, split: str) -> tuple[tuple[int, tuple[int, ...]], bool]:
    """Return channels and size of a DataLoader's images, and whether they have targets, from its first batch."""
    first = next(iter(OwnLoader(loader, task).epoch(0)), None)
    if first is None:
        called = {"train": "training"}.get(split, split)
        raise UserError(f"The {called} DataLoader yields no batch: give it data, or leave out drop_last.")
    is_image = isinstance(first.inputs, Tensor) and first.inputs.ndim == 4
    shape = (first.inputs.shape[1], tuple(first.inputs.shape[2:])) if is_image else (0, ())
    return shape, first.targets is not None


def _outputs(splits: Mapping[str, Split], task: Task) -> int:
    """Return how many numbers a network answers with: from the training targets, or the first others that there are."""
    for value in splits.values():
        targets = _targets(value, task)
        if targets is not None and bool((targets != UNLABELLED).any()):
            return task.count_outputs(targets)
    return 0


def _targets(split: Split, task: Task) -> Tensor | None:
    if isinstance(split, Samples):
        return split.targets
    if isinstance(split.dataset, IterableDataset):
        raise UserError("The classes of this DataLoader cannot be counted beforehand: pass num_classes=.")
    with seeded(0):
        if input_and_target(split.dataset[0])[1] is None:
            return None
        return find_targets(split.dataset, task)


def _digest(splits: Mapping[str, Samples]) -> str:
    """Return what stands for the content: all targets, and the first input of each split."""
    digest = hashlib.sha256()
    for split, samples in sorted(splits.items()):
        with seeded(0):
            first, _ = samples[0]
        digest.update(f"{split} {len(samples)} ".encode())
        if samples.targets is not None:
            digest.update(samples.targets.cpu().contiguous().numpy().tobytes())
        parts = first.values() if isinstance(first, Mapping) else [first]
        for part in parts:
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
