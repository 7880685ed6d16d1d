"""A Python user's own datasets or DataLoaders as `Data`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sized
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tutelage.data.augment import Augmentation
from tutelage.data.class_names import listed, names_of, renumbered, tell_order
from tutelage.data.dataset import TEST, TRAIN, Data, Split, assemble
from tutelage.data.fields import input_and_target
from tutelage.data.own import OwnLoader, as_samples
from tutelage.data.own_targets import find_targets
from tutelage.data.samples import Samples
from tutelage.data.task import Task, task_named
from tutelage.errors import UserError, notice
from tutelage.losses import UNLABELLED
from tutelage.system.chance import seeded

# More classes than this for each different label, and labels are likely numbers of something else.
_SPARSE = 10
_MANY = 1000


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
    for_training: bool = True,
) -> Data:
    """Return a user's own objects as `Data`.

    Float tensors are passed to the network as they are; uint8 tensors, PIL and numpy images become floats in [0, 1].

    Args:
        train: A map-style dataset of (input, target), of mappings with both, or of inputs alone; or a DataLoader of
            such batches, which is used as it is.
        validation: The same. None holds samples out of a training dataset (with its transforms, so bring one of your
            own if those are random), and means none for a DataLoader.
        test: The same; None for none.
        task: The kind of targets: `classification`, `multi-label`, `regression`, or `unlabelled` to hide those of the
            training samples.
        num_classes: The number of classes; None counts them in the labels.
        class_names: One name per class; None numbers them.
        hold_out: The fraction of a training dataset to hold out when `validation` is None; 0 for none.
        split_seed: Seed of the choice of samples to hold out.
        augment: The augmentation of training images after the dataset's own transforms, such as `"crop:4,flip"`; None
            for none.
        name: The data's name in reports.
        for_training: Whether a network will learn from them, so that two classes or more are needed.

    Raises:
        UserError: If something is not a dataset, or its targets do not fit the task.
    """
    kind = task_named(task)
    if train is None:
        raise UserError("There are no data to learn from: pass them first. To measure only, use tutelage.evaluate.")
    if class_names is not None:
        num_classes = len(class_names) if num_classes is None else num_classes
        if len(class_names) != num_classes:
            raise UserError(f"{len(class_names)} class names for {num_classes} classes: give one for each.")
    given = {"train": train, "validation": validation, "test": test}
    splits = {split: as_samples(value, kind) for split, value in given.items() if value is not None}
    for value in splits.values():
        _check_loader(value)
    augmentation = Augmentation() if augment is None else Augmentation.parse(augment)
    _check_augmentation(splits[TRAIN], augmentation)
    # Names are of use only where a sample has one class.
    own = _own_names(given) if {"sample-labels", "novel"} & kind.offers else {}
    splits = {split: _by_name(value, split, own, name) for split, value in splits.items()}
    outputs = _outputs(splits, kind, for_training=for_training) if num_classes is None else num_classes
    names = class_names or _called(own.get(TRAIN), outputs)
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


def _check_loader(value: Split) -> None:
    """Refuse a DataLoader without a length, or whose samples are batches."""
    if not isinstance(value, DataLoader):
        return
    if isinstance(value.dataset, IterableDataset) and not isinstance(value.dataset, Sized):
        raise UserError(
            f"The {type(value.dataset).__name__} of a DataLoader is iterable and has no length, so the end of an epoch "
            "is not known: give it __len__, or pass a dataset with __len__ and __getitem__."
        )
    if value.batch_size is None and value.batch_sampler is None and not isinstance(value.dataset, IterableDataset):
        raise UserError(
            "A DataLoader with batch_size=None treats each sample as a batch: pass its dataset, with one sample per "
            "index, or give it a batch size."
        )


def _own_names(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the class names of each split that has some."""
    found = {split: names_of(value) for split, value in given.items() if value is not None}
    return {split: names for split, names in found.items() if names is not None}


def _called(names: tuple[str, ...] | None, outputs: int) -> tuple[str, ...]:
    """Return a name for each class: the given one if there are enough of them, otherwise its number."""
    return tuple(map(str, range(outputs))) if names is None or len(names) < outputs else names[:outputs]


def _by_name(value: Split, split: str, own: Mapping[str, tuple[str, ...]], name: str) -> Split:
    """Return a split with its classes numbered as those of training."""
    where = f"the {split} split of {name}"
    # A split that lacks only the last classes numbers the others alike.
    if not (TRAIN in own and split in own) or own[split] == own[TRAIN][: len(own[split])]:
        return value
    if isinstance(value, DataLoader):
        raise UserError(
            f"The classes of {where} are numbered differently from those of training, and a DataLoader is used as it "
            "is: pass its dataset, whose classes are read by name, or renumber them. This split has "
            f"{listed(own[split])}; training has {listed(own[TRAIN])}."
        )
    if value.targets is None:
        return value
    read = value.with_targets(renumbered(value.targets, own[split], own[TRAIN], where=where))
    tell_order(own[split], own[TRAIN], where=where)
    return read


def _check_augmentation(train: Split, augmentation: Augmentation) -> None:
    if not augmentation:
        return
    if isinstance(train, DataLoader):
        raise UserError("A DataLoader does its own augmentation: leave out augment=, or pass the dataset.")
    if not train.size:
        raise UserError(
            f"{augmentation} is for images of one size, which the inputs are not: leave out augment=, and augment in "
            "the dataset."
        )


def _from_loaders(splits: Mapping[str, Split], task: Task, names: tuple[str, ...], name: str) -> Data:
    unlabelled = set()
    shapes = {}
    for split, value in splits.items():
        if isinstance(value, Samples):
            shapes[split] = (value.channels, value.size)
            is_labelled = value.has_targets
        else:
            shapes[split], is_labelled = _look(value, task, split)
        unlabelled |= set() if is_labelled else {split}
        if task.hides_targets and is_labelled and isinstance(value, DataLoader) and split != TEST:
            raise UserError(
                f"The {split} DataLoader yields targets, but the task {task.name!r} has none: leave them out."
            )
    channels, size = shapes[TRAIN]
    # What a DataLoader yields is known only by reading all of it, so its sizes alone make the fingerprint.
    facts = repr([(split, len(value)) for split, value in splits.items()] + [len(names), channels])
    return Data(
        name=name,
        splits=splits,
        task=task,
        num_classes=len(names),
        class_names=names,
        in_channels=channels,
        image_size=size,
        # A user's own loader normalises, or does not, as the user wants.
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        augmentation=Augmentation(),
        fingerprint=hashlib.sha256(task.salt + facts.encode()).hexdigest(),
        unlabelled=frozenset(unlabelled),
    )


def _look(loader: DataLoader[Any], task: Task, split: str) -> tuple[tuple[int, tuple[int, ...]], bool]:
    """Return channels and size of a DataLoader's images, and whether they have targets, from its first batch."""
    # Through `OwnLoader`, which seeds and restores the random numbers that the loader draws.
    first = next(iter(OwnLoader(loader, task).epoch(0)), None)
    if first is None:
        called = {"train": "training"}.get(split, split)
        raise UserError(f"The {called} DataLoader yields no batch: give it data, or leave out drop_last.")
    is_image = isinstance(first.inputs, Tensor) and first.inputs.ndim == 4
    shape = (first.inputs.shape[1], tuple(first.inputs.shape[2:])) if is_image else (0, ())
    return shape, first.targets is not None


def _outputs(splits: Mapping[str, Split], task: Task, *, for_training: bool) -> int:
    """Return how many numbers a network returns: from the training targets, or the first others that there are."""
    for value in splits.values():
        targets = _targets(value, task)
        if targets is not None and bool((targets != UNLABELLED).any()):
            outputs = task.count_outputs(targets)
            if for_training and "sample-labels" in task.offers:
                _check_numbers(targets, outputs)
            return outputs
    return 0


def _check_numbers(labels: Tensor, classes: int) -> None:
    """Refuse or report labels that look like other numbers, because they would make far too many classes."""
    found = labels[labels != UNLABELLED].unique()  # type: ignore[no-untyped-call]  # torch's
    if len(found) == 1:
        raise UserError(f"The training labels are all {int(found[0])}, so there is nothing to tell apart.")
    if classes <= _SPARSE * len(found):
        return
    text = f"The training labels are {len(found)} different numbers up to {int(found[-1])}"
    if classes > _MANY:
        raise UserError(
            f"{text}, which would make {classes:,} classes: number the classes from 0 to {len(found) - 1}, or say how "
            "many there are with as_data(..., num_classes=...), from tutelage.data."
        )
    notice(f"{text}, which makes {classes} classes: if there are fewer, number them from 0 to {len(found) - 1}.")


def _targets(split: Split, task: Task) -> Tensor | None:
    if isinstance(split, Samples):
        return split.targets
    if isinstance(split.dataset, IterableDataset):
        raise UserError(
            "The classes of this DataLoader cannot be counted, because its dataset is iterable: pass as_data(loader, "
            "num_classes=...), from tutelage.data, as the data."
        )
    with seeded(0):
        if input_and_target(split.dataset[0])[1] is None:
            return None
        return find_targets(split.dataset, task)


def _digest(splits: Mapping[str, Samples]) -> str:
    """Return a digest that stands for the content: of all targets, and the first input of each split."""
    digest = hashlib.sha256()
    for split, samples in sorted(splits.items()):
        # The first input alone: reading all would take as long as an epoch.
        with seeded(0):
            first, _ = samples[0]
        digest.update(f"{split} {len(samples)} ".encode())
        if samples.targets is not None:
            digest.update(samples.targets.cpu().contiguous().numpy().tobytes())
        parts = first.values() if isinstance(first, Mapping) else [first]
        for part in parts:
            digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
