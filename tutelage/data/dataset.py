"""What is trained and measured on: the splits of one source, and everything that is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from tutelage.data.augment import Augmentation
from tutelage.data.loader import Loader, make_loader
from tutelage.data.plan import RecordedViews
from tutelage.data.samplers import BatchSampler
from tutelage.data.samples import Samples
from tutelage.data.splits import hold_out, thin_out
from tutelage.data.statistics import mean_and_std
from tutelage.data.task import OF_LABELS, Offer, Task, task_named
from tutelage.errors import UserError, unknown

Split = Samples | DataLoader[Any]
Device = torch.device | str

TRAIN, VALIDATION, TEST, FOREIGN = "train", "validation", "test", "foreign"
# The test images are the same for every seed that decides about validation images.
_TEST_SEED = 0


@dataclass(frozen=True)
class ForeignData:
    """Images from elsewhere.

    Attributes:
        name: What they are called in reports.
        images: The images, in the size and the channels of the data that they are beside.
        fingerprint: SHA-256 over their content.
    """

    name: str
    images: Split = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """The splits of one source. The test split is reported on, never chosen by.

    Attributes:
        name: What it is called in reports.
        splits: By name: `train` is learned from, `validation` is chosen by, `test` is reported on. Each may be absent.
            Further ones are reported on; their names begin with `validation` or `test`.
        task: What the samples have for targets, how answers are judged, and what is measured.
        num_classes: How many numbers a network answers a sample with: classes, labels or values.
        class_names: One name for each of these numbers.
        in_channels: 1 for grey images, 3 for colour; 0 if the inputs are no images.
        image_size: Height and width in pixels; () if the inputs are no images.
        mean: Per channel, over the training images in [0, 1]; 0 when the user normalises.
        std: Per channel, over the training images in [0, 1]; 1 when the user normalises.
        augmentation: What is done to training images.
        fingerprint: SHA-256 over content and splits: pixels and targets of resident images; files of streamed ones;
            targets and the first image of a user's own datasets; only the sizes of a user's own loaders.
        unlabelled: The splits whose samples have no targets.
        foreign: Images from elsewhere, which the uncertainty of a network should tell from the test images.
        augmentation_chosen: Whether the user asked for the augmentation. Otherwise it is the usual one, which gives way
            to that of a recording.
        recording: Views of the training samples that were recorded with a teacher's answers, and are trained on instead
            of freshly drawn ones.
    """

    name: str
    splits: Mapping[str, Split] = field(repr=False)
    task: Task = field(default_factory=lambda: task_named("classification"))
    num_classes: int
    class_names: tuple[str, ...] = field(repr=False)
    in_channels: int = 0
    image_size: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    fingerprint: str
    unlabelled: frozenset[str] = frozenset()
    foreign: ForeignData | None = field(default=None, repr=False)
    augmentation_chosen: bool = field(default=False, repr=False)
    recording: RecordedViews | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", MappingProxyType(dict(self.splits)))

    @property
    def train(self) -> Split:
        """What is learned from.

        Raises:
            UserError: If there is no such split.
        """
        return self.split(TRAIN)

    @property
    def validation(self) -> Split | None:
        """What the epoch is chosen by; None when all training samples are learned from."""
        return self.splits.get(VALIDATION)

    @property
    def test(self) -> Split | None:
        """What is reported on; None where nothing is."""
        return self.splits.get(TEST)

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits that scores are reported of, the validation splits first and the test split last."""
        found = [name for name in self.splits if name != TRAIN and name not in self.unlabelled]
        return tuple(sorted(found, key=lambda name: (name == TEST, not name.startswith(VALIDATION), name)))

    @property
    def offers(self) -> frozenset[Offer]:
        """What a method may read of the training samples."""
        found = self.task.offers - (OF_LABELS if TRAIN in self.unlabelled else frozenset())
        return found if self.image_size else found - {"images"}

    def with_splits(self, **splits: Split | None) -> Data:
        """Return the data with other samples in some splits; None leaves a split out."""
        merged = {**self.splits, **splits}
        kept = {name: samples for name, samples in merged.items() if samples is not None}
        unlabelled = {
            name
            for name, samples in kept.items()
            if (name in self.unlabelled if name not in splits else _is_unlabelled(samples, name in self.unlabelled))
        }
        return replace(self, splits=kept, unlabelled=frozenset(unlabelled))

    def split(self, name: str) -> Split:
        """Return the samples of a split.

        Raises:
            UserError: If there is no such split, or no such name of one.
        """
        splits = {**self.splits, **({} if self.foreign is None else {FOREIGN: self.foreign.images})}
        if name not in splits and name not in (TRAIN, VALIDATION, TEST, FOREIGN):
            raise unknown("split", name, [*splits, TRAIN, VALIDATION, TEST])
        if name not in splits:
            raise UserError(f"{self.name} has no {name} split: bring one, or hold one out of the training images.")
        return splits[name]

    def count(self, split: str) -> int:
        """Return the number of samples of a split, 0 if there is none.

        Raises:
            UserError: If there is no such name of a split.
        """
        known = (TRAIN, VALIDATION, TEST, FOREIGN)
        if split in known and split not in self.splits and not (split == FOREIGN and self.foreign is not None):
            return 0
        samples = self.split(split)
        held: Any = samples.dataset if isinstance(samples, DataLoader) else samples
        return len(held)

    def example(self, samples: int) -> Any:
        """Return the inputs of the first samples, of training where there are any, without augmentation.

        A user's own DataLoader has batches of its own size, of which so many samples are taken.
        """
        split = TRAIN if TRAIN in self.splits else next(iter(self.splits))
        loader = self.loader(split, train=False, batch_size=samples, workers=0)
        return _first(next(iter(loader.epoch(0))).inputs, samples)

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
            split: The name of the split, or `"foreign"`.
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
        samples = self.split(split)
        if train and world_size > 1 and batch_size % world_size:
            raise UserError(f"A batch of {batch_size} cannot be shared by {world_size} processes: take a multiple.")
        leaves_one = 1 < batch_size < self.count(split) and self.count(split) % batch_size == 1
        return make_loader(
            samples,
            self.task,
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


def _is_unlabelled(samples: Split, before: bool) -> bool:
    """Return whether samples have no targets; of a DataLoader only what stood in its place tells."""
    return samples.targets is None if isinstance(samples, Samples) else before


def _first(inputs: Any, samples: int) -> Any:
    """Return the inputs of the first samples of a batch."""
    if isinstance(inputs, Mapping):
        return {name: _first(value, samples) for name, value in inputs.items()}
    return inputs[:samples]


def assemble(
    splits: Mapping[str, Samples],
    *,
    name: str,
    task: Task,
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
        task: What the targets are.
        class_names: One name for each number that a network answers with.
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
    strata = strata_of(splits[TRAIN])
    train = np.arange(len(strata))
    if test is not None and TEST not in splits:
        train, chosen[TEST] = hold_out(strata, test, seed=_TEST_SEED, what=TEST)
    if subset is not None:
        train = train[thin_out(strata[train], subset, seed=split_seed)]
    if validation != 0 and VALIDATION not in splits:
        kept, held = hold_out(strata[train], validation, seed=split_seed, what=VALIDATION)
        train, chosen[VALIDATION] = train[kept], train[held]
    if len(train) < len(strata):
        chosen[TRAIN] = train
    parts: dict[str, Samples] = {**splits, **{part: splits[TRAIN].select(rows) for part, rows in chosen.items()}}
    if task.hides_targets:
        parts = {part: samples if part == TEST else samples.with_targets(None) for part, samples in parts.items()}
    if "sample-labels" in task.offers:
        _check_classes(parts, class_names, name)
    mean, std = mean_and_std(parts[TRAIN]) if parts[TRAIN].size else ((), ())
    return Data(
        name=name,
        splits=parts,
        task=task,
        num_classes=len(class_names),
        class_names=class_names,
        in_channels=parts[TRAIN].channels,
        image_size=parts[TRAIN].size,
        mean=mean,
        std=std,
        augmentation=augmentation,
        fingerprint=_fingerprint(task, digest, chosen),
        unlabelled=frozenset(part for part, samples in parts.items() if samples.targets is None),
    )


def strata_of(samples: Samples) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return what samples are held out evenly by, `[sample]`: their class, where each has one; else all are alike."""
    targets = samples.targets
    if targets is None or targets.ndim != 1 or targets.is_floating_point():
        return np.zeros(len(samples), dtype=np.int64)
    return targets.cpu().numpy()


def _fingerprint(task: Task, digest: str, chosen: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]) -> str:
    # The name of a task only where it has one to add: runs of before there were tasks are known without.
    content = hashlib.sha256(task.salt + digest.encode())
    for part, rows in sorted(chosen.items()):
        content.update(part.encode() + rows.astype(np.int64).tobytes())
    return content.hexdigest()


def _check_classes(parts: Mapping[str, Samples], class_names: tuple[str, ...], name: str) -> None:
    labels = {part: samples.targets.cpu().numpy() for part, samples in parts.items() if samples.targets is not None}
    counts = {part: np.bincount(found[found >= 0]) for part, found in labels.items()}
    for part, count in counts.items():
        if len(count) > len(class_names):
            raise UserError(
                f"The {part} split of {name} has the label {len(count) - 1}, out of the range 0 to "
                f"{len(class_names) - 1}: correct it, or give the right number of classes."
            )
        if TRAIN not in counts:
            continue
        learned = np.zeros(len(count), dtype=np.int64)
        learned[: len(counts[TRAIN])] = counts[TRAIN][: len(count)]
        unseen = np.flatnonzero((count > 0) & (learned == 0))
        if len(unseen):
            raise UserError(
                f"The {part} split of {name} has the class {class_names[unseen[0]]!r}, which training does not have: "
                f"add training images of it, or remove it from the {part} split."
            )
