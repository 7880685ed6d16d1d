"""Data with novel classes: labels of some classes are hidden, or some samples have none from the start."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.data.dataset import TEST, TRAIN, VALIDATION, Data
from tutelage.data.samples import Samples
from tutelage.data.splits import hold_out
from tutelage.data.statistics import mean_and_std
from tutelage.data.task import task_named
from tutelage.errors import UserError, unknown
from tutelage.losses import UNLABELLED

Novel = str | int | Sequence[str]
"""Which classes are novel: their number, or their names. In a text, names are joined by `+`; a text that is a number is
their number, and the one class called 3 is `3+`."""

TASK = "discovery"
SEEN = f"{TEST}-training"
"""The split of the novel training samples with their hidden labels, by which a discovery is measured."""


@dataclass(frozen=True)
class _Numbering:
    """The new number of each class: known ones first, in their order."""

    known: tuple[int, ...]
    novel: tuple[int, ...]

    def of(self, labels: Tensor) -> Tensor:
        order = torch.tensor([*self.known, *self.novel])
        # The last entry is for samples without a label, whose index is -1.
        table = torch.full((len(order) + 1,), UNLABELLED)
        table[order] = torch.arange(len(order))
        return table[labels.cpu()]


def with_novel(data: Data, novel: Novel, *, validation: float = 0.1, seed: int = 0) -> Data:
    """Return data whose novel classes have no labels in training, with the task that looks for them.

    If training samples without a label are there already, they are the novel ones, and `novel` is the number of their
    classes. Otherwise the labels of the named classes are hidden, or those of as many of the last ones. Then the
    training samples with hidden labels also become a split of their own, `test-training`, to measure by.

    Args:
        data: Labelled data.
        novel: The number of novel classes, or their names.
        validation: The share of the labelled training samples to hold out if there is no validation split. Hidden
            labels have no part in it.
        seed: Seed of that choice.

    Raises:
        UserError: If there is no such class, too few classes are left on a side, or the samples are too few.
    """
    splits = _checked(data)
    train = splits[TRAIN]
    if bool((_labels(train) == UNLABELLED).any()):
        found = _of_unlabelled(data, splits, _number(novel, data))
    else:
        found = _hidden(data, splits, novel)
    share = validation if VALIDATION not in found.splits and found.task.primary == "accuracy" else 0.0
    content = f"{data.fingerprint} novel {found.class_names} {found.task.known} {share} {seed}"
    found = replace(found, fingerprint=hashlib.sha256(content.encode()).hexdigest())
    return _with_validation(found, share, seed) if share else found


def known_only(data: Data) -> Data:
    """Return the labelled samples of the known classes alone, as a classification.

    Args:
        data: Data with novel classes.
    """
    known = data.task.known
    splits = {name: _of_known(samples, known) for name, samples in _checked(data).items()}
    return replace(
        data.with_splits(**splits),
        task=task_named("classification"),
        num_classes=known,
        class_names=data.class_names[:known],
        fingerprint=hashlib.sha256(f"{data.fingerprint} known".encode()).hexdigest(),
    )


def _checked(data: Data) -> dict[str, Samples]:
    """Return the splits as samples, each with class indices."""
    splits = {}
    for name, samples in data.splits.items():
        if isinstance(samples, DataLoader):
            raise UserError(
                f"The {name} split is a DataLoader, whose samples cannot be told apart by position: pass its dataset."
            )
        assert isinstance(samples, Samples)
        labels = samples.targets
        if labels is None or labels.ndim != 1 or labels.is_floating_point():
            raise UserError(
                f"The {name} split of {data.name} has no class for each sample: novel classes are found beside known "
                "ones, whose samples have labels (-1 is no label)."
            )
        splits[name] = samples
    if TRAIN not in splits:
        raise UserError(f"{data.name} has no training split, in which novel classes could be found.")
    return splits


def _number(novel: Novel, data: Data) -> int:
    """Return the number of novel classes, which have no names where samples come without labels.

    Raises:
        UserError: If it is none.
    """
    text = str(novel) if isinstance(novel, int | str) else "+".join(novel)
    if text.strip().isdecimal() and int(text) >= 1:
        return int(text)
    named = [name for name in data.class_names if name in text.split("+")]
    beside = f"{named[0]} is a known class, whose samples have labels; the novel ones are" if named else "these are"
    raise UserError(
        f"novel={text}: some training samples have no label, and {beside} of novel classes without names. Give the "
        "number of these classes, such as --novel 5."
    )


def _of_unlabelled(data: Data, splits: dict[str, Samples], number: int) -> Data:
    """Return data whose unlabelled training samples are of novel classes."""
    known, classes = data.num_classes, data.num_classes + number
    labels = {name: _labels(samples) for name, samples in splits.items()}
    _check_sizes(data, known, number, int((labels[TRAIN] == UNLABELLED).sum()))
    for name, found in labels.items():
        if int(found.max()) >= classes:
            raise UserError(
                f"The {name} split has the label {int(found.max())}, but {known} known classes and {number} novel ones "
                f"are numbered from 0 to {classes - 1}: give the right number of novel classes (--novel)."
            )
    is_measured = TEST in labels and bool((labels[TEST] >= known).any())
    # Where the accuracy on known classes is all there is, nothing may be chosen by it: the clusters have no part in it.
    validation = _of_known(splits.get(VALIDATION), known) if is_measured else None
    return _assembled(data.with_splits(validation=validation), known, number, (), is_measured=is_measured)


def _hidden(data: Data, splits: dict[str, Samples], novel: Novel) -> Data:
    """Return data in which the labels of some classes are hidden."""
    numbering = _numbering(data, novel)
    known = len(numbering.known)
    renumbered = {name: samples.with_targets(numbering.of(_labels(samples))) for name, samples in splits.items()}
    train = renumbered[TRAIN]
    labels = _labels(train)
    is_novel = labels >= known
    _check_sizes(data, known, len(numbering.novel), int(is_novel.sum()))
    found: dict[str, Samples | None] = {
        **renumbered,
        SEEN: train.select(torch.nonzero(is_novel)[:, 0].numpy()),
        TRAIN: train.with_targets(labels.masked_fill(is_novel, UNLABELLED)),
    }
    is_measured = TEST in renumbered and bool((_labels(renumbered[TEST]) >= known).any())
    found[VALIDATION] = _of_known(renumbered.get(VALIDATION), known) if is_measured else None
    names = [data.class_names[number] for number in (*numbering.known, *numbering.novel)]
    shown = replace(data.with_splits(**found), class_names=tuple(names[:known]))
    return _assembled(shown, known, len(numbering.novel), tuple(names[known:]), is_measured=is_measured)


def _labels(samples: Samples) -> Tensor:
    """Return the class indices of samples, `[sample]`, on the CPU."""
    assert samples.targets is not None
    return samples.targets.cpu()


def _assembled(data: Data, known: int, novel: int, hidden: tuple[str, ...], *, is_measured: bool) -> Data:
    # Which of the novel classes a cluster is, nobody has told the network: its outputs have numbers for names.
    clusters = tuple(f"novel {number}" for number in range(1, novel + 1))
    task = task_named(TASK).beside(known, novel, hidden, is_measured=is_measured)
    return replace(data, task=task, num_classes=known + novel, class_names=(*data.class_names[:known], *clusters))


def _of_known(samples: Samples | None, known: int) -> Samples | None:
    """Return the samples of known classes; None if there are none."""
    if samples is None:
        return None
    labels = _labels(samples)
    chosen = torch.nonzero((labels >= 0) & (labels < known))[:, 0]
    return samples.select(chosen.numpy()) if len(chosen) else None


def _with_validation(data: Data, share: float, seed: int) -> Data:
    """Hold a share of the labelled training samples out for validation."""
    train = data.train
    assert isinstance(train, Samples)
    labels = _labels(train).numpy()
    labelled = np.flatnonzero(labels >= 0)
    kept, held = hold_out(labels[labelled], share, seed=seed, what=VALIDATION)
    rest = np.sort(np.concatenate([labelled[kept], np.flatnonzero(labels < 0)]))
    found = data.with_splits(train=train.select(rest), validation=train.select(labelled[held]))
    # Samples held out must not reach the network even by their statistics.
    mean, std = mean_and_std(found.train) if data.mean else ((), ())  # type: ignore[arg-type]  # samples, as above
    return replace(found, mean=mean, std=std)


def _numbering(data: Data, novel: Novel) -> _Numbering:
    """Return which classes stay known, and which become novel.

    Raises:
        UserError: If a class does not exist, is named twice, or fewer than two classes would stay known.
    """
    names = data.class_names
    if isinstance(novel, int) or (isinstance(novel, str) and novel.strip().isdecimal()):
        number = int(novel)
        chosen = tuple(range(max(0, len(names) - number), len(names)))
        if number < 1 or len(names) - number < 2:
            raise UserError(
                f"novel={number}: {data.name} has {len(names)} classes, of which two or more must stay known. Give a "
                f"number from 1 to {len(names) - 2}, or names."
            )
    else:
        # A name may hold the sign that joins names.
        wanted = [novel] if novel in names else novel.rstrip("+").split("+") if isinstance(novel, str) else list(novel)
        wanted = [str(name).strip() for name in wanted]
        for name in wanted:
            if name not in names:
                raise unknown("novel class", name, names)
        if len(set(wanted)) < len(wanted):
            raise UserError(f"novel={'+'.join(wanted)} names a class twice.")
        chosen = tuple(index for index, name in enumerate(names) if name in wanted)
    known = tuple(index for index in range(len(names)) if index not in chosen)
    if len(known) < 2:
        raise UserError(
            f"Of the {len(names)} classes of {data.name}, {len(chosen)} are novel: two or more must stay known."
        )
    return _Numbering(known, chosen)


def _check_sizes(data: Data, known: int, novel: int, unlabelled: int) -> None:
    if known < 2:
        raise UserError(
            f"{data.name} has labels of {known} class: novel classes are found beside two known ones or more."
        )
    if unlabelled < novel:
        raise UserError(
            f"{novel} novel classes cannot be found in {unlabelled} unlabelled training samples of {data.name}: give a "
            "smaller number (--novel), or more images."
        )
