"""The header of a recording: which data and teacher it belongs to, and why it does not fit others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from tutelage.data.augment import Augmentation
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.models.saving import holds_network
from tutelage.recording import layout
from tutelage.recording.identity import DataIdentity, TeacherIdentity, contrast
from tutelage.recording.quantization import Quantization, Values
from tutelage.system.files import write_json

VERSION = 1
NAME = "recording.json"


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything needed to read a recording, and to check that it fits the data and the teacher.

    Attributes:
        keep: What is kept of an answer, as `Quantization.parse` reads it.
        values: How logits, probabilities and features are stored.
        classes: The number of classes.
        samples: Number of samples in the training split. The rows are in the order of that split.
        rows_per_shard: Rows of every shard but the last, which may have fewer.
        augmentation: What was done to the images, as `Augmentation.parse` reads it.
        parameters: How many numbers describe a view.
        image_size: Height and width in pixels, before the augmentation.
        seed: Seed of all random numbers in the views.
        precision: Precision in which the teacher computed.
        teacher: Which network answered.
        data: Which samples were asked about.
        layers: The layers that are kept, each with its shape without the batch.
        stages: The last layer of each of the teacher's stages, kept or not, each with its shape without the batch;
            empty if no layers are kept. With them, layers are paired as they are with the network itself.
    """

    keep: str
    values: Values
    classes: int
    samples: int
    rows_per_shard: int
    augmentation: str
    parameters: int
    image_size: tuple[int, ...]
    seed: int
    precision: str
    teacher: TeacherIdentity
    data: DataIdentity
    layers: Mapping[str, tuple[int, ...]]
    stages: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def quantization(self) -> Quantization:
        """What is kept of an answer."""
        return Quantization.parse(self.keep)

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """The type of a row."""
        return layout.row_dtype(
            parameters=self.parameters,
            keep=self.quantization,
            classes=self.classes,
            values=self.values,
            layers=self.layers,
        )

    @property
    def shards(self) -> int:
        """How many shards a view has."""
        return layout.shard_count(self.samples, self.rows_per_shard)

    def rows(self, shard: int) -> range:
        """Return the positions of a shard's samples in the dataset."""
        return layout.shard_range(self.samples, self.rows_per_shard, shard)

    def to_json(self) -> dict[str, Any]:
        """Return the header as it is stored."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the header that was stored.

        Raises:
            UserError: If it is of another version of the format, or incomplete.
        """
        # Refused rather than guessed at: a misread row would teach wrong answers without a word.
        version = content.get("version")
        if version != VERSION:
            raise UserError(
                f"Its format is version {version}, and this Tutelage reads version {VERSION}: use the Tutelage that "
                "wrote it, or record again."
            )
        given = {key: value for key, value in content.items() if key != "version"}
        try:
            header = cls(
                **given
                | {
                    "image_size": tuple(given["image_size"]),
                    "teacher": TeacherIdentity(**given["teacher"]),
                    "data": DataIdentity(**given["data"] | {"class_names": tuple(given["data"]["class_names"])}),
                    "layers": {layer: tuple(shape) for layer, shape in given["layers"].items()},
                    # Recordings made before stages were stored have none.
                    "stages": {layer: tuple(shape) for layer, shape in given.get("stages", {}).items()},
                }
            )
            _check_facts(header)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, UserError) as error:
            raise UserError(
                f"Its header is damaged or incomplete ({error}): restore it from a copy, or record again into another "
                "folder."
            ) from error
        return header

    def write(self, folder: Path) -> None:
        """Store the header in the folder of its recording. If another process has stored one first, that one stays.

        Raises:
            UserError: If it cannot be written.
        """
        write_json(folder / NAME, self.to_json(), replace=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the header of the recording in a folder.

        Raises:
            UserError: If there is none, it is damaged, or it is of another version of the format.
        """
        # The header is written before the first shard, so without it there is no recording.
        file = folder / NAME
        try:
            return cls.from_json(json.loads(file.read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"There is no recording in {folder}: make one with `tutelage record`.") from error
        except UserError as error:
            raise UserError(f"The recording in {folder} cannot be read. {error}") from error
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{file} is damaged ({error}): restore it from a copy, or record again into another folder."
            ) from error


def begun(folder: Path) -> Header | None:
    """Return the header of the recording that is in a folder already; None if there is none.

    Raises:
        UserError: If the header cannot be read, there are shards without a header (they may be another teacher's), or
            the folder holds a network.
    """
    # Shards are looked for before the header: another process writes its header before its first shard, so a shard
    # seen here without a header is never one that is just being made.
    shard = next(folder.glob("view-*/*.npy"), None)
    if (folder / NAME).exists():
        return Header.read(folder)
    if shard is not None:
        raise UserError(
            f"{folder} holds shards but no {NAME}, without which nobody knows what was recorded: restore it from a "
            "copy, delete the folder, or choose another with --out."
        )
    if holds_network(folder):
        raise UserError(f"{folder} already holds a network: choose another folder for the recording with --out.")
    return None


def differences(recorded: Header, now: Header) -> list[str]:
    """Return, in plain words, every difference between a recording and what would be recorded now."""
    found = recorded.data.differences(
        now.data,
        same_number=recorded.samples == now.samples,
        same_size=recorded.image_size == now.image_size,
    )
    found += recorded.teacher.differences(now.teacher)
    if (recorded.augmentation, recorded.parameters) != (now.augmentation, now.parameters):
        found.append(contrast("other view parameters: another augmentation", recorded.augmentation, now.augmentation))
    # Each fact by its words in a message and by its field.
    facts = {
        "another size of the images": "image_size",
        "another number of training samples": "samples",
        "another number of classes": "classes",
        "another choice of what to keep": "keep",
        "another type of stored values": "values",
        "other layers": "layers",
        "another seed": "seed",
        "another precision of the teacher": "precision",
        "another number of rows per shard": "rows_per_shard",
    }
    for what, name in facts.items():
        there, here = getattr(recorded, name), getattr(now, name)
        if there != here:
            found.append(contrast(what, there, here))
    return found


def check(folder: Path, recorded: Header, now: Header) -> None:
    """Refuse to add to a recording that was made in another way.

    Raises:
        UserError: If anything differs; the message lists every difference.
    """
    found = differences(recorded, now)
    if found:
        raise UserError(
            f"{folder} holds a recording that was made differently:\n  "
            + "\n  ".join(found)
            + "\nUse the flags that it was made with, or choose another folder with --out."
        )


def check_data(folder: Path, recorded: Header, data: Data, *, augmentation: str | None = None) -> None:
    """Refuse to replay a recording for other data.

    Args:
        folder: Where the recording is.
        recorded: Its header.
        data: The data to train on.
        augmentation: The augmentation that the user asked for; None if the user left it open.

    Raises:
        UserError: If the data differ (the message lists every difference) or cannot be read by position.
    """
    # All that is not about the data is copied from the recording, so only the data can differ.
    now = replace(
        recorded,
        data=DataIdentity.of(data),
        samples=data.count("train"),
        classes=data.num_classes,
        image_size=data.image_size,
        augmentation=augmentation or recorded.augmentation,
    )
    found = differences(recorded, now)
    if found:
        raise UserError(
            f"The recording in {folder} does not belong to these data:\n  "
            + "\n  ".join(found)
            + "\nTrain on the data that were recorded, with the same settings, or record these with `tutelage record`."
        )


def _check_facts(header: Header) -> None:
    """Refuse a header whose values cannot describe a recording.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range.
        UserError: If the scheme, the type of stored values or the augmentation does not exist.
    """
    for name in ("keep", "values", "augmentation", "precision"):
        _check_fact(name, getattr(header, name), str)
    for name in ("classes", "samples", "rows_per_shard"):
        _check_fact(name, getattr(header, name), int, least=1)
    _check_fact("parameters", header.parameters, int, least=0)
    _check_fact("seed", header.seed, int)
    for identity in (header.teacher, header.data):
        for name, fact in vars(identity).items():
            _check_fact(name, fact, tuple if name == "class_names" else str)
    for name in header.data.class_names:
        _check_fact("class_names", name, str)
    for name, sizes in (("image_size", header.image_size), *header.layers.items(), *header.stages.items()):
        for size in sizes:
            _check_fact(name, size, int, least=1)
    if len(header.image_size) != 2:
        raise ValueError(f"image_size={list(header.image_size)} is not a height and a width")
    if Augmentation.parse(header.augmentation).width != header.parameters:
        raise ValueError(f"parameters={header.parameters} does not belong to {header.augmentation}")
    # Computing the row type finds the remaining faults, such as an unknown scheme, while they can still be reported.
    _ = header.row_dtype


def _check_fact(name: str, fact: object, kind: type, *, least: int | None = None) -> None:
    # Not isinstance: True is an int, and would pass as a number.
    if type(fact) is not kind:
        raise TypeError(f"{name}={fact!r} is not of type {kind.__name__}")
    if least is not None and isinstance(fact, int) and fact < least:
        raise ValueError(f"{name}={fact} is below {least}")
