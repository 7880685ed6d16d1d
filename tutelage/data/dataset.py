"""Data to train and measure on: the splits of one source, and the facts about them."""

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
from tutelage.data.offers import OF_LABELS, Offer
from tutelage.data.plan import RecordedViews
from tutelage.data.samplers import BatchSampler
from tutelage.data.samples import Samples
from tutelage.data.splits import hold_out, thin_out
from tutelage.data.statistics import mean_and_std
from tutelage.data.task import Task, task_named
from tutelage.data.texts import ATTENTION_MASK, RawTexts, TokenSamples
from tutelage.errors import UserError, unknown

Split = Samples | DataLoader[Any]
Device = torch.device | str

TRAIN, VALIDATION, TEST, FOREIGN = "train", "validation", "test", "foreign"
# Fixed, so that the test images stay the same for every seed of the validation images.
_TEST_SEED = 0


@dataclass(frozen=True)
class ForeignData:
    """Images of another dataset, with which a network's uncertainty is tested.

    Attributes:
        name: Their name in reports.
        images: The images, with the size and the channels of the main data.
        fingerprint: SHA-256 over their content.
    """

    name: str
    images: Split = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """The splits of one source. The test split is only reported on; nothing is chosen by it.

    Attributes:
        name: Its name in reports.
        splits: The splits by name. `train` is for learning, `validation` for choosing, `test` for reporting. Each may
            be absent. Further splits are reported on; their names begin with `validation` or `test`.
        task: The kind of targets, the losses and the metrics.
        num_classes: How many numbers a network returns for a sample: classes, labels or values.
        class_names: One name for each of these numbers.
        in_channels: 1 for grey images, 3 for colour; 0 if the inputs are not images.
        image_size: Height and width in pixels; () if the inputs are not images.
        mean: Per channel, over the training images in [0, 1]; 0 when the user normalises.
        std: Per channel, over the training images in [0, 1]; 1 when the user normalises.
        augmentation: The augmentation of training images.
        fingerprint: SHA-256 over content and splits: pixels and targets of resident images; files of streamed ones;
            targets and the first image of a user's own datasets; only the sizes of a user's own loaders.
        unlabelled: The splits whose samples have no targets.
        foreign: Images of another dataset. A network's uncertainty should distinguish them from the test images.
        augmentation_chosen: Whether the user asked for the augmentation. If not, a recording's augmentation replaces
            it.
        recording: Views of the training samples that were recorded with a teacher's answers. They are trained on
            instead of newly drawn views.
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
        # A dictionary inside a frozen object could still be changed.
        object.__setattr__(self, "splits", MappingProxyType(dict(self.splits)))

    @property
    def train(self) -> Split:
        """The training split.

        Raises:
            UserError: If there is none.
        """
        return self.split(TRAIN)

    @property
    def validation(self) -> Split | None:
        """The validation split, by which the best epoch is chosen; None if there is none."""
        return self.splits.get(VALIDATION)

    @property
    def test(self) -> Split | None:
        """The test split; None if there is none."""
        return self.splits.get(TEST)

    @property
    def measured(self) -> tuple[str, ...]:
        """The splits whose scores are reported: validation splits first, the test split last."""
        found = [name for name in self.splits if name != TRAIN and name not in self.unlabelled]
        return tuple(sorted(found, key=lambda name: (name == TEST, not name.startswith(VALIDATION), name)))

    @property
    def offers(self) -> frozenset[Offer]:
        """The facts about the training samples that a method can use."""
        found = self.task.offers - (OF_LABELS if TRAIN in self.unlabelled else frozenset())
        if self.image_size:
            return found
        return found - {"images"} | ({"tokens"} if self._has_tokens else frozenset())

    @property
    def _has_tokens(self) -> bool:
        samples = self.splits.get(TRAIN)
        # Texts that are not encoded yet cannot be read, and samples of a kind of their own are asked.
        if samples is None or isinstance(samples, RawTexts | TokenSamples):
            return samples is not None
        inputs = self.example(1)
        return isinstance(inputs, Mapping) and ATTENTION_MASK in inputs

    @property
    def is_taught_apart(self) -> bool:
        """Whether the teacher reads the samples in another encoding than the student."""
        return any(isinstance(samples, Samples) and samples.taught is not None for samples in self.splits.values())

    def as_taught(self) -> Data:
        """Return the data as the teacher reads them: in its own encoding, if it has one."""
        if not self.is_taught_apart:
            return self
        samples = {name: self.splits[name] for name in self.splits}
        splits = {name: (one.taught if isinstance(one, Samples) else None) or one for name, one in samples.items()}
        fingerprint = hashlib.sha256(f"{self.fingerprint} as taught".encode()).hexdigest()
        return replace(self, splits=splits, fingerprint=fingerprint)

    def with_splits(self, **splits: Split | None) -> Data:
        """Return the data with other samples in some splits; None leaves a split out."""
        merged = {**self.splits, **splits}
        kept = {name: samples for name, samples in merged.items() if samples is not None}
        # A split that is not replaced is as labelled as before; a new one is asked.
        unlabelled = {
            name
            for name, samples in kept.items()
            if (name in self.unlabelled if name not in splits else _is_unlabelled(samples, name in self.unlabelled))
        }
        return replace(self, splits=kept, unlabelled=frozenset(unlabelled))

    def split(self, name: str) -> Split:
        """Return the samples of a split.

        Raises:
            UserError: If the data have no such split, or the name is unknown.
        """
        splits = {**self.splits, **({} if self.foreign is None else {FOREIGN: self.foreign.images})}
        # A usual name is not misspelt: its split is missing, which the second message says.
        if name not in splits and name not in (TRAIN, VALIDATION, TEST, FOREIGN):
            raise unknown("split", name, [*splits, TRAIN, VALIDATION, TEST])
        if name not in splits:
            raise UserError(f"{self.name} has no {name} split: add one, or hold one out of the training images.")
        return splits[name]

    def count(self, split: str) -> int:
        """Return the number of samples of a split, 0 if there is none.

        Raises:
            UserError: If the name is unknown.
        """
        known = (TRAIN, VALIDATION, TEST, FOREIGN)
        if split in known and split not in self.splits and not (split == FOREIGN and self.foreign is not None):
            return 0
        samples = self.split(split)
        held: Any = samples.dataset if isinstance(samples, DataLoader) else samples
        return len(held)

    def example(self, samples: int) -> Any:
        """Return the inputs of the first samples, without augmentation: of the training split if there is one.

        A user's own DataLoader has its own batch size; the first samples of its first batch are taken.
        """
        split = TRAIN if TRAIN in self.splits else next(iter(self.splits))
        # Of the samples as they are trained on: their images have one size, and those that are measured may not. A few
        # samples are not worth starting worker processes.
        loader = make_loader(self.split(split), self.task, batch_size=samples, workers=0)
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
            seed: Seed of all random numbers.
            device: The device of the batches.
            channels_last: Whether inputs have the channels innermost in memory.
            workers: Number of processes that read images; None for the usual number.
            drop_last: Whether to leave out a last batch that is smaller. Several processes that train always do, so
                that each has an equal share of every gradient; training always leaves out a last batch of one sample,
                which batch norm cannot normalise.
            batch_sampler: Forms the batches, instead of `batch_size` and shuffling.
            rank: The number of this process, from 0.
            world_size: How many processes share each batch.
            sections: How many equal sections a batch of `batch_sampler` consists of.

        Raises:
            UserError: If there is no such split, or the batch cannot be shared equally.
        """
        samples = self.split(split)
        if not train and isinstance(samples, Samples):
            samples = samples.measured()
        if train and world_size > 1 and batch_size % world_size:
            raise UserError(
                f"A batch of {batch_size} cannot be shared equally by {world_size} processes: take a multiple of "
                f"{world_size}."
            )
        # A last batch of one sample has no variance for batch norm to divide by.
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
    """Return whether samples have no targets. A DataLoader does not tell, so it counts as the split it replaces."""
    return not samples.has_targets if isinstance(samples, Samples) else before


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
    """Hold out the splits that are missing, and gather the facts about the data.

    Args:
        splits: `"train"`, and `"validation"` and `"test"` if the source has them.
        name: The data's name in reports.
        task: The task of the targets.
        class_names: One name for each number that a network returns for a sample.
        augmentation: The augmentation of training images.
        digest: Digest of the content of `splits`.
        validation: The fraction of the training images to hold out if there is no validation split; 0 for none.
        test: The fraction of the training images to hold out if there is no test split; None for none.
        split_seed: Seed of the choice of validation images and of the subset.
        subset: How many training images to keep, validation included; None keeps all.

    Raises:
        UserError: If the splits cannot be made, or hold classes that training does not have.
    """
    if not 0 <= validation < 1:
        raise UserError(f"validation is {validation:g}: give the share to hold out, from 0 (none) to below 1.")
    chosen: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    strata = strata_of(splits[TRAIN])
    train = np.arange(len(strata))
    # The test split comes first: a smaller subset or another seed must not change it.
    if test is not None and TEST not in splits:
        train, chosen[TEST] = hold_out(strata, test, seed=_TEST_SEED, what=TEST)
    if subset is not None:
        train = train[thin_out(strata[train], subset, seed=split_seed)]
    if validation != 0 and VALIDATION not in splits:
        kept, held = hold_out(strata[train], validation, seed=split_seed, what=VALIDATION)
        train, chosen[VALIDATION] = train[kept], train[held]
    # A split of which all samples stay leaves no trace in the fingerprint.
    if len(train) < len(strata):
        chosen[TRAIN] = train
    parts: dict[str, Samples] = {**splits, **{part: splits[TRAIN].select(rows) for part, rows in chosen.items()}}
    # Only now, because held-out samples were drawn class by class. The test split keeps its labels to be measured by.
    if task.hides_targets:
        parts = {part: samples if part == TEST else samples.with_targets(None) for part, samples in parts.items()}
    if "sample-labels" in task.offers:
        _check_classes(parts, class_names, name)
    # Over what is left for training: samples held out must not reach the network even by their statistics.
    mean, std = mean_and_std(parts[TRAIN]) if parts[TRAIN].size else ((), ())
    task = task.fitted(parts[TRAIN], len(class_names))
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
        unlabelled=frozenset(part for part, samples in parts.items() if not samples.has_targets),
    )


def strata_of(samples: Samples) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the group of each sample for a stratified split, `[sample]`: its class, or one group if it has none."""
    targets = samples.targets
    # Sets of classes and numbers have no groups to keep in proportion.
    if targets is None or targets.ndim != 1 or targets.is_floating_point():
        return np.zeros(len(samples), dtype=np.int64)
    return targets.cpu().numpy()


def _fingerprint(task: Task, digest: str, chosen: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]) -> str:
    # Classification adds no salt: runs saved before there were tasks have fingerprints without one.
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
        # Unlabelled training samples do not say which classes they have.
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
