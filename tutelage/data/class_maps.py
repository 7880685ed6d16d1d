"""Masks of classes: which number in a file is which class, and which is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.map_files import read_map
from tutelage.data.map_format import MapFormat
from tutelage.data.names import Spec
from tutelage.data.survey import Survey
from tutelage.errors import UserError, notice
from tutelage.losses import UNLABELLED

CUSTOMARY = 255
"""The number that many datasets give to pixels without a class."""

_NAMES = ("classes.json", "classes.txt")
_STRANGE = -2
# Masks have 16 bits at most; larger numbers are no classes.
_RANGE = 1 << 16


@dataclass(frozen=True)
class ClassList:
    """The classes that stand beside data, or that a user names.

    Attributes:
        names: The name of each number in the masks, from 0 on, those to be ignored included; empty if nobody says.
        ignored: The numbers that are no class.
    """

    names: tuple[str, ...] = ()
    ignored: tuple[int, ...] = ()

    @classmethod
    def beside(cls, folder: Path) -> ClassList:
        """Return what `classes.json` or `classes.txt` in a folder says; nothing if there is neither.

        `classes.txt` has one name a line, for the numbers from 0 on. `classes.json` is a list of names, or an object
        with such a list as `classes` (or `names`), and if there is one, the number to ignore as `ignore_index`.

        Args:
            folder: The folder of the data.

        Raises:
            UserError: If such a file cannot be understood.
        """
        file = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
        return cls() if file is None else cls.read(file)

    @classmethod
    def read(cls, file: Path) -> ClassList:
        """Return what a file of class names says, as `beside` does.

        Args:
            file: The file.

        Raises:
            UserError: If it is absent, or cannot be understood.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"The file of classes {file} cannot be read: {error}.") from error
        if file.suffix != ".json":
            return cls(tuple(line.strip() for line in text.splitlines() if line.strip()))
        try:
            content = json.loads(text)
            about: Mapping[str, Any] = content if isinstance(content, dict) else {"classes": content}
            names = tuple(map(str, about["classes"] if "classes" in about else about["names"]))
            ignored = about.get("ignore_index")
            return cls(names, () if ignored is None else (int(ignored),))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f'{file} names no classes: write a list of names, or {{"classes": [...], "ignore_index": 255}}.'
            ) from error


class ClassMaps:
    """Turns the numbers in files of masks into class indices: consecutive from 0, and -1 where a pixel has no class.

    Args:
        surveys: What the masks of each split hold; `train` is among them.
        known: The classes that are known.

    Attributes:
        names: One name for each class.

    Raises:
        UserError: If a mask holds a number that is no class; the message names the file.
    """

    def __init__(self, surveys: Mapping[str, Survey], known: ClassList) -> None:
        train = surveys["train"].values
        ignored = set(known.ignored) if known.ignored else {CUSTOMARY} & _all(surveys)
        count = len(known.names) or max(set(train) - ignored, default=-1) + 1
        classes = [value for value in range(count) if value not in ignored]
        if not known.names and not known.ignored and set(train) == {0, CUSTOMARY}:
            # Masks of one thing, white on black: here 255 is a class.
            notice("The masks hold 0 and 255 alone, which are read as two classes, 0 and 255.")
            ignored, classes = set(), [0, CUSTOMARY]
        _check(surveys, classes, ignored)
        if len(classes) < 2:
            raise UserError(f"The masks hold one class only, {classes or 'none'}: there is nothing to tell apart.")
        _tell(train, known, classes, ignored)
        self.names = tuple(known.names[value] if known.names else str(value) for value in classes)
        self._lookup = np.full(_RANGE, _STRANGE, dtype=np.int16)
        self._lookup[classes] = np.arange(len(classes))
        self._lookup[[value for value in ignored if 0 <= value < _RANGE]] = UNLABELLED

    def read(self, values: NDArray[np.int64], where: str) -> NDArray[np.int16]:
        """Return the class index of each pixel, `[height, width]`.

        Args:
            values: The numbers in the file.
            where: The file, for messages.

        Raises:
            UserError: If one of them is no class, such as in a file that changed since all were looked at.
        """
        inside = (values >= 0) & (values < _RANGE)
        found: NDArray[np.int16] = np.where(inside, self._lookup[np.where(inside, values, 0)], _STRANGE)
        if (found == _STRANGE).any():
            raise _no_class(int(values[found == _STRANGE][0]), where, len(self.names))
        return found


def parse_ignored(text: str) -> tuple[int, ...]:
    """Return the numbers of `ignore=0+255`.

    Raises:
        UserError: If it is no list of whole numbers.
    """
    try:
        return tuple(int(part) for part in text.split("+"))
    except ValueError as error:
        raise UserError(f"ignore={text} is no number: write ignore=255, or ignore=0+255 for several.") from error


def known_classes(where: Spec) -> ClassList:
    """Return the classes that the user named, or that stand beside the data.

    Args:
        where: The user's request.

    Raises:
        UserError: If a file of classes cannot be understood.
    """
    if where.classes is not None:
        found = ClassList.read(Path(where.classes).expanduser())
    else:
        found = ClassList() if where.path is None else ClassList.beside(where.path)
    return found if where.ignore is None else ClassList(found.names, parse_ignored(where.ignore))


def _noted(values: NDArray[Any], where: Spec, place: str) -> list[int]:
    found: list[int] = np.unique(values).tolist()
    return found


MASKS = MapFormat(
    word="mask",
    folders=("masks", "mask", "annotations", "annotation", "labels", "label", "segmentationclass"),
    columns=("mask", "annotation", "label", "labels", "segmentation", "segmentation_mask", "seg"),
    options=("ignore", "classes"),
    read=read_map,
    noted=_noted,
    identity=lambda where: {"ignore": where.ignore, "classes": repr(known_classes(where))},
)
"""Masks of classes."""


def _all(surveys: Mapping[str, Survey]) -> set[int]:
    return {value for survey in surveys.values() for value in survey.values}


def _check(surveys: Mapping[str, Survey], classes: Sequence[int], ignored: set[int]) -> None:
    for found in surveys.values():
        strange = sorted(set(found.values) - set(classes) - ignored)
        if strange:
            raise _no_class(strange[0], found.values[strange[0]], len(classes))


def _no_class(value: int, where: str, classes: int) -> UserError:
    return UserError(
        f"The mask at {where} holds the number {value}, which is none of the {classes} classes. If such pixels have no "
        f"class, name the number behind the data, as in PATH,ignore={value}; else correct the mask, or name all "
        "classes in classes.txt beside the data, one a line."
    )


def _tell(train: Mapping[int, str], known: ClassList, classes: Sequence[int], ignored: set[int]) -> None:
    """Tell what was guessed: a number to ignore that nobody named, and classes that no training mask holds."""
    if not known.ignored and CUSTOMARY in ignored:
        notice("Pixels of the masks with the number 255 have no class, and are ignored.")
    absent = [known.names[value] if known.names else str(value) for value in classes if value not in train]
    if absent:
        few = ", ".join(absent[:6]) + (f" and {len(absent) - 6} more" if len(absent) > 6 else "")
        notice(f"No training mask holds the class{'es' if len(absent) > 1 else ''} {few}.")
