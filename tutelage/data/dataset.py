"""A dataset with its splits and all that the rest must know of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from tutelage.data.augment import Augmentation
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.loader import Device, Loader, make_loader
from tutelage.data.own import ForeignImages
from tutelage.data.plan import RecordedViews
from tutelage.data.samplers import BatchSampler
from tutelage.data.splits import hold_out, thin_out
from tutelage.data.statistics import mean_and_std
from tutelage.errors import UserError, unknown

Images = ResidentImages | StreamedImages | ForeignImages
# The same test images whatever the seed, or results could not be compared.
_TEST_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ForeignData:
    """Images from elsewhere, in the size and the channels of the data beside which they are measured.

    Attributes:
        name: What they are called in reports.
        images: The samples; their labels are not read.
        fingerprint: As of `Data`.
    """

    name: str
    images: Dataset[Any] | DataLoader[Any] = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images with classes, split in three. The test split is reported on, never chosen by.

    Attributes:
        name: What it is called in reports.
        train: What is learned from.
        validation: What is chosen by; None when all training images are learned from.
        test: What is reported on.
        num_classes: The number of classes.
        class_names: One name per class.
        in_channels: 1 for grey images, 3 for colour.
        image_size: Height and width in pixels.
        mean: Per channel, over the training images in [0, 1]; 0 when the user normalises.
        std: Per channel, over the training images in [0, 1]; 1 when the user normalises.
        augmentation: What is done to training images.
        fingerprint: SHA-256 over content and splits: pixels and labels of resident images; files of streamed ones;
            labels and the first image of a user's own datasets; only the sizes of a user's own loaders.
        foreign: Images from elsewhere, which the uncertainty of a network should tell from the test images.
        augmentation_chosen: Whether the user asked for the augmentation. Otherwise it is the usual one, which gives way
            to that of a recording.
        recording: Views of the training samples that were recorded with a teacher's answers, and are trained on instead
            of freshly drawn ones.
    """

    name: str
    train: Dataset[Any] | DataLoader[Any] = field(repr=False)
    validation: Dataset[Any] | DataLoader[Any] | None = field(repr=False)
    test: Dataset[Any] | DataLoader[Any] | None = field(repr=False)
    num_classes: int
    class_names: tuple[str, ...] = field(repr=False)
    in_channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    fingerprint: str
    foreign: ForeignData | None = field(default=None, repr=False)
    augmentation_chosen: bool = field(default=False, repr=False)
    recording: RecordedViews | None = field(default=None, repr=False)

    def count(self, split: str) -> int:
        """Return the number of samples of a split, 0 if there is none.

        Raises:
            UserError: If there is no such name of a split.
        """
        images = self._split(split)
        if images is None:
            return 0
        held: Any = images.dataset if isinstance(images, DataLoader) else images
        return len(held)

    def example(self, samples: int) -> Any:
        """Return the inputs of the first training samples, without augmentation."""
        return next(iter(self.loader("train", train=False, batch_size=samples, workers=0).epoch(0))).inputs

    def loader(
        self,
        split: str,
        *,
        batch_size: int,
        train: bool,
        seed: int = 0,
        device: Device = "cpu",
        channels_last: bool = False,
        workers: int | None = None,
        drop_last: bool = False,
        batch_sampler: BatchSampler | None = None,
        rank: int = 0,
        world_size: int = 1,
        sections: int = 1,
    ) -> Loader:
        """Return the batches of a split.

        Args:
            split: `"train"`, `"validation"`, `"test"` or `"foreign"`.
            batch_size: Samples per batch, over all processes. A user's own DataLoader keeps its own.
            train: Whether to shuffle and augment.
            seed: Decides all chance.
            device: Where the batches go.
            channels_last: Whether inputs have the channels innermost in memory.
            workers: Processes that read images; None chooses.
            drop_last: Whether to leave out a last batch that is smaller. Several processes that train always do, so
                that each has an equal share of every gradient; training always leaves out a last batch of one sample,
                which batch norm cannot normalise.
            batch_sampler: Decides the batches instead of `batch_size` and the shuffling.
            rank: Which process this is.
            world_size: How many processes share each batch.
            sections: How many equal sections a batch of `batch_sampler` consists of.

        Raises:
            UserError: If there is no such split, or the batch cannot be shared equally.
        """
        images = self._split(split)
        if images is None:
            raise UserError(f"{self.name} has no {split} split: bring one, or hold one out of the training images.")
        if train and world_size > 1 and batch_size % world_size:
            raise UserError(f"A batch of {batch_size} cannot be shared by {world_size} processes: take a multiple.")
        leaves_one = 1 < batch_size < self.count(split) and self.count(split) % batch_size == 1
        return make_loader(
            images,
            batch_size=batch_size,
            seed=seed,
            shuffle=train,
            augmentation=self.augmentation if train else Augmentation(),
            drop_last=drop_last or (train and (world_size > 1 or leaves_one)),
            batch_sampler=batch_sampler,
            device=device,
            channels_last=channels_last,
            workers=workers,
            rank=rank,
            world_size=world_size,
            sections=sections,
            recorded=self.recording if train else None,
        )

    def _split(self, split: str) -> Dataset[Any] | DataLoader[Any] | None:
        foreign = None if self.foreign is None else self.foreign.images
        splits = {"train": self.train, "validation": self.validation, "test": self.test, "foreign": foreign}
        if split not in splits:
            raise unknown("split", split, splits)
        return splits[split]


def assemble(
    splits: Mapping[str, Images],
    *,
    name: str,
    class_names: tuple[str, ...],
    augmentation: Augmentation,
    digest: str,
    validation: float,
    test: float | None,
    split_seed: int = 0,
    subset: int | None = None,
) -> Data:
    """Hold out what is missing, and gather what must be known.

    Args:
        splits: `"train"`, and `"validation"` and `"test"` where the source has them.
        name: What the data are called in reports.
        class_names: One name per class.
        augmentation: What is done to training images.
        digest: Stands for the content of `splits`.
        validation: The fraction of the training images to hold out if there is no such split; 0 holds out none.
        test: The same for the test split; None holds out none.
        split_seed: Decides which images are for validation.
        subset: How many training images to keep, validation included; None keeps all.

    Raises:
        UserError: If the splits cannot be made, or hold classes that training does not have.
    """
    if not 0 <= validation < 1:
        raise UserError(f"validation is {validation:g}: give the share to hold out, from 0 (none) to below 1.")
    chosen: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    targets = splits["train"].targets.cpu().numpy()
    train = np.arange(len(targets))
    if test is not None and "test" not in splits:
        train, chosen["test"] = hold_out(targets, test, seed=_TEST_SEED, what="test")
    if subset is not None:
        train = train[thin_out(targets[train], subset, seed=split_seed)]
    if validation != 0 and "validation" not in splits:
        kept, held = hold_out(targets[train], validation, seed=split_seed, what="validation")
        train, chosen["validation"] = train[kept], train[held]
    if len(train) < len(targets):
        chosen["train"] = train
    parts: dict[str, Images] = {**splits, **{part: splits["train"].select(rows) for part, rows in chosen.items()}}
    _check_classes(parts, class_names, name)
    mean, std = mean_and_std(parts["train"])
    content = hashlib.sha256(digest.encode())
    for part, rows in sorted(chosen.items()):
        content.update(part.encode() + rows.astype(np.int64).tobytes())
    return Data(
        name=name,
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        num_classes=len(class_names),
        class_names=class_names,
        in_channels=parts["train"].channels,
        image_size=parts["train"].size,
        mean=mean,
        std=std,
        augmentation=augmentation,
        fingerprint=content.hexdigest(),
    )


def _check_classes(parts: Mapping[str, Images], class_names: tuple[str, ...], name: str) -> None:
    counts = {part: np.bincount(images.targets.cpu().numpy()) for part, images in parts.items()}
    for part, count in counts.items():
        if len(count) > len(class_names):
            raise UserError(
                f"The {part} split of {name} has the label {len(count) - 1}, out of the range 0 to "
                f"{len(class_names) - 1}: correct it, or give the right number of classes."
            )
        learned = np.zeros(len(count), dtype=np.int64)
        learned[: len(counts["train"])] = counts["train"][: len(count)]
        unseen = np.flatnonzero((count > 0) & (learned == 0))
        if len(unseen):
            raise UserError(
                f"The {part} split of {name} has the class {class_names[unseen[0]]!r}, which training does not have: "
                f"add training images of it, or remove it from the {part} split."
            )
