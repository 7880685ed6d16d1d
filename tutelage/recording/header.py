"""What a recording is of: its header, and why it does not fit other data or another teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage.data.dataset import Data
from tutelage.data.foreign import foreign_images
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.seeding import seeded
from tutelage.errors import UserError
from tutelage.files import write_json
from tutelage.fingerprint import of_tensors
from tutelage.models.normalization import Normalized, bare
from tutelage.recording import layout
from tutelage.recording.quantization import Quantization, Values

VERSION = 1
NAME = "recording.json"
_PROBES = 16


@dataclass(frozen=True, kw_only=True)
class TeacherIdentity:
    """Which network answered.

    Attributes:
        name: What it is called.
        source: Where it came from, as the user wrote it.
        weights: Digest of its parameters and buffers; empty if it has none.
        normalization: Its own input normalisations as text, means before stds; empty if it has none.
    """

    name: str
    source: str
    weights: str
    normalization: str

    @classmethod
    def of(cls, network: nn.Module, *, name: str, source: str) -> Self:
        """Return the identity of a network.

        Args:
            network: The network, bare or wrapped.
            name: What it is called.
            source: Where it came from.
        """
        inner = bare(network)
        # No state dict holds these, and they are told apart from the weights.
        statistics = {f"{path}.{name}".lstrip(".") for path in _normalized(inner) for name in ("mean", "std")}
        state = inner.state_dict() | dict(inner.named_buffers())
        weights = {key: value for key, value in state.items() if key not in statistics}
        normalization = "; ".join(str(module.normalization) for module in _normalized(network).values())
        return cls(
            name=name, source=source, weights=of_tensors(weights) if weights else "", normalization=normalization
        )


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which samples were asked about.

    Attributes:
        name: What the data are called.
        fingerprint: As of `Data`.
        pixels: SHA-256 over sixteen training images.
    """

    name: str
    fingerprint: str
    pixels: str

    @classmethod
    def of(cls, data: Data) -> Self:
        """Return the identity of the training images of a dataset.

        Raises:
            UserError: If they cannot be read by position, or are not the same each time.
        """
        first, second = (_pixels(data, seed) for seed in (0, 1))
        if first != second:
            raise UserError(
                f"The training images of {data.name} differ each time they are read, so no recorded answer belongs to "
                "them: leave chance out of the dataset's own transform, and augment with --augment."
            )
        return cls(name=data.name, fingerprint=data.fingerprint, pixels=first)


@dataclass(frozen=True, kw_only=True)
class Header:
    """All that must be known to read a recording, and to tell whether it fits.

    Attributes:
        keep: What is kept of an answer, as `Quantization.parse` reads it.
        values: How logits, probabilities and features are stored.
        classes: The number of classes.
        samples: Samples of the training split, in whose order the rows stand.
        rows_per_shard: Rows of every shard but the last, which may have fewer.
        augmentation: What was done to the images, as `Augmentation.parse` reads it.
        parameters: How many numbers describe a view.
        image_size: Height and width in pixels, before the augmentation.
        seed: All chance came from it.
        precision: What the teacher computed in.
        teacher: Which network answered.
        data: Which samples were asked about.
        layers: The layers that are kept, each with its shape without the batch.
    """

    keep: str
    values: Values
    classes: int
    samples: int
    rows_per_shard: int
    augmentation: str
    parameters: int
    image_size: tuple[int, int]
    seed: int
    precision: str
    teacher: TeacherIdentity
    data: DataIdentity
    layers: Mapping[str, tuple[int, ...]]

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
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Store the header in the folder of its recording.

        Raises:
            UserError: If it cannot be written.
        """
        write_json(folder / NAME, self.to_json())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the header of the recording in a folder.

        Raises:
            UserError: If there is none, it is damaged, or it is of another version of the format.
        """
        raise NotImplementedError


def differences(recorded: Header, now: Header) -> list[str]:
    """Return, in plain words, all in which a recording differs from what would be recorded now."""
    raise NotImplementedError


def check(folder: Path, recorded: Header, now: Header) -> None:
    """Refuse to add to a recording what does not belong to it.

    Raises:
        UserError: If anything differs, with all that does.
    """
    raise NotImplementedError


def check_data(folder: Path, recorded: Header, data: Data, *, augmentation: str | None = None) -> None:
    """Refuse to replay a recording for other data.

    Args:
        folder: Where the recording is.
        recorded: Its header.
        data: What is trained on.
        augmentation: What the user wants done to the images; None if that was left open.

    Raises:
        UserError: If the data are others, with all that differs, or cannot be read by position.
    """
    raise NotImplementedError
