"""What a recording is of: which network answered, about which samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from torch.utils.data import DataLoader

from tutelage.data.dataset import Data
from tutelage.data.foreign import foreign_images
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.data.seeding import seeded
from tutelage.errors import UserError
from tutelage.fingerprint import of_tensors
from tutelage.models.normalization import Normalized, bare

_PROBES = 16


@dataclass(frozen=True, kw_only=True)
class TeacherIdentity:
    """Which network answered.

    Attributes:
        name: What it is called.
        source: Where it came from: as the user wrote it, with the paths in it made absolute.
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
        statistics = {f"{path}.{buffer}" for path in _normalized(inner) for buffer in ("mean", "std")}
        state = inner.state_dict() | dict(inner.named_buffers())
        weights = {key: value for key, value in state.items() if key not in statistics}
        normalization = "; ".join(str(module.normalization) for module in _normalized(network).values())
        digest = of_tensors(weights) if weights else ""
        return cls(name=name, source=source, weights=digest, normalization=normalization)

    def differences(self, now: Self) -> list[str]:
        """Return, in plain words, in what the teacher that is there now differs."""
        found = []
        if self.weights != now.weights:
            found.append(
                contrast(
                    "other weights of the teacher",
                    *(f"{it.weights or 'none'} ({it.name}, {it.source})" for it in (self, now)),
                )
            )
        elif not now.weights and self.name != now.name:
            # Nothing else tells teachers without weights apart.
            found.append(contrast("another teacher", self.name, now.name))
        if self.normalization != now.normalization:
            there, here = (it.normalization or "none" for it in (self, now))
            found.append(contrast("another normalisation of the teacher's inputs", there, here))
        return found


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """Which samples were asked about.

    Attributes:
        name: What the data are called.
        fingerprint: As of `Data`.
        pixels: Digest of sixteen training images.
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

    def differences(self, now: Self) -> list[str]:
        """Return, in plain words, in what the data that are there now differ."""
        if self.fingerprint != now.fingerprint:
            if self.name != now.name:
                return [contrast("another dataset", self.name, now.name)]
            return [f"another dataset: {now.name} has another content, or other samples of it are for training"]
        if self.pixels != now.pixels:
            return [f"other pixels: the images of {now.name} are decoded or transformed otherwise"]
        return []


def contrast(what: str, there: object, here: object) -> str:
    """Return a line on a fact that is one thing in a recording, and another now."""
    return f"{what} ({there} there, {here} here)"


def _normalized(network: nn.Module) -> dict[str, Normalized]:
    return {path: module for path, module in network.named_modules() if isinstance(module, Normalized)}


def _pixels(data: Data, seed: int) -> str:
    """Return a digest of training images that are spread over the split, read under one state of all chance."""
    if isinstance(data.train, DataLoader):
        raise UserError(
            "Recorded answers belong to samples by position, which a DataLoader does not tell: pass the dataset."
        )
    with seeded(seed):
        images = data.train if isinstance(data.train, ResidentImages | StreamedImages) else foreign_images(data.train)
        last = len(images) - 1
        indices = sorted({round(last * probe / (_PROBES - 1)) for probe in range(_PROBES)})
        pixels = (
            images.gather(torch.tensor(indices))
            if isinstance(images, ResidentImages)
            else images.read_batch(indices)[0]
        )
    return of_tensors({"pixels": pixels})
