"""Names of classes: finding them in users' datasets, and matching labels by name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from tutelage.data.fields import TARGETS
from tutelage.errors import UserError, notice
from tutelage.losses import UNLABELLED

_SHOWN = 8


def names_of(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a user's dataset, in the order of its labels; None if it has none.

    Datasets of torchvision have `classes`, tables of Hugging Face a column of class labels.

    Args:
        dataset: A dataset, a `Subset` or `ConcatDataset` of datasets, or a DataLoader.

    Raises:
        UserError: If joined datasets number their classes differently.
    """
    if isinstance(dataset, DataLoader | Subset):
        return names_of(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        found = [names_of(part) for part in dataset.datasets]
        if len({*found} - {None}) > 1:
            raise UserError(
                "Datasets that are joined number their classes differently: "
                + "; ".join(listed(names) for names in found if names)
                + ". Renumber them first."
            )
        return found[0]
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        columns = [features[name] for name in TARGETS if name in features]
        return _as_names(getattr(columns[0], "names", None)) if columns else None
    return _as_names(getattr(dataset, "classes", None))


def are_names(classes: Sequence[str]) -> bool:
    """Return whether class names say more than a position, as `3` and `label 3` do."""
    beginning = re.sub(r"\d+$", "", classes[0]) if classes else ""
    # `label 0`, `label 1` and so on only count positions, and so do bare numbers.
    return len(classes) > 1 and [*classes] != [f"{beginning}{number}" for number in range(len(classes))]


def tell_text_order(names: Sequence[str], *, where: str) -> None:
    """Warn about class names that are numbers but are sorted as text.

    Args:
        names: The classes, in the order of their text.
        where: The data that have them, for messages.
    """
    if all(name.isdecimal() for name in names) and [*names] != sorted(names, key=int):
        notice(
            f"The classes of {where} are numbers, but are sorted as text: {listed(names)}. The outputs of a network "
            "with the classes in the order of the numbers would be read wrongly: give the names leading zeros."
        )


def tell_twins(names: Sequence[str], *, where: str) -> None:
    """Warn about classes whose names look the same: one class, perhaps, that was written in two ways.

    Args:
        names: The classes.
        where: The data that have them, for messages.
    """
    known: dict[str, str] = {}
    for name in names:
        # Upper case, spaces and hyphens aside. Systems differ in whether they write é as one sign or as two.
        plain = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())
        if plain in known:
            notice(
                f"{where} has the classes {known[plain]!r} and {name!r}, whose names differ only in upper case, spaces "
                "or in how a sign is written: they are two classes. If they are one, put their images into one folder."
            )
        known.setdefault(plain, name)


def positions(own: Sequence[str], names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the position of each of a split's classes among those of training; -1 if training does not have it."""
    place = {name: index for index, name in enumerate(names)}
    return np.array([place.get(name, UNLABELLED) for name in own], dtype=np.int64)


def renumbered(targets: Tensor, own: Sequence[str], names: Sequence[str], *, where: str) -> Tensor:
    """Return class indices of a split in the order of training's classes, found by name.

    Args:
        targets: The split's class indices, int64 `[sample]`; -1 stays.
        own: The split's class names.
        names: Training's class names.
        where: The split, for messages.

    Raises:
        UserError: If a sample has a class that training does not have, or that has no name.
    """
    labels = targets.cpu().numpy()
    if (wrong := np.flatnonzero(labels >= len(own))).size:
        raise UserError(
            f"Sample {wrong[0]} of {where} has the label {labels[wrong[0]]}, but its class names go from 0 to "
            f"{len(own) - 1}: correct the label."
        )
    # An index of -1 reads the last class, so unlabelled samples keep theirs.
    found = np.where(labels < 0, labels, positions(own, names)[labels])
    if (strange := np.flatnonzero((found < 0) & (labels >= 0))).size:
        raise UserError(
            f"Sample {strange[0]} of {where} has the class {own[labels[strange[0]]]!r}, which training does not have: "
            f"remove such samples, or train on that class too. Training has {listed(names)}."
        )
    return torch.from_numpy(found)


def tell_order(own: Sequence[str], names: Sequence[str], *, where: str) -> None:
    """Tell the user that a split is read by name, because it numbers its classes differently from training."""
    notice(
        f"The classes of {where} are numbered differently from those of training: they are read by name. This split "
        f"has {listed(own)}; training has {listed(names)}."
    )


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: all of them, or the first few."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _as_names(given: Any) -> tuple[str, ...] | None:
    """Return a dataset's class names: text, or as for ImageNet tuples of synonyms; None if two are equal."""
    if not isinstance(given, list | tuple) or not given:
        return None
    names = tuple(", ".join(name) if isinstance(name, tuple | list) and _are_text(name) else name for name in given)
    # Two classes of one name cannot be told apart by it.
    return names if _are_text(names) and len(set(names)) == len(names) else None


def _are_text(names: Sequence[Any]) -> bool:
    return all(isinstance(name, str) for name in names)
