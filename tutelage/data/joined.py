"""Unlabelled images beside labelled ones: they are trained on together, and only a teacher says anything of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.data.ood import check_scale, shaped
from tutelage.data.samples import Indices, Samples
from tutelage.data.sources import load_data
from tutelage.data.wrap import as_data
from tutelage.errors import UserError
from tutelage.losses import UNLABELLED


def with_unlabelled(data: Data, source: str | Data | Dataset[Any] | DataLoader[Any]) -> Data:
    """Return data that are trained on together with unlabelled images, in the size and the channels of their own.

    Args:
        data: The labelled data.
        source: The images: data by name or path, of which the training split is taken, or a dataset, which is taken
            whole. Labels that they may have are not read.

    Raises:
        UserError: If the task knows no sample without a label, or the samples of either cannot be read by position.
    """
    if not {"labels", "novel"} & data.offers and not data.task.has_maps:
        raise UserError(
            f"Unlabelled images go beside samples with class labels or maps, and these data are for {data.task.title}: "
            "leave out --unlabelled."
        )
    own = data.train
    if isinstance(own, DataLoader) or isinstance(source, DataLoader):
        raise UserError("Unlabelled images are mixed into the batches, and a DataLoader has its own: pass the dataset.")
    if isinstance(source, str):
        source = load_data(source, task="unlabelled", validation=0)
    if not isinstance(source, Data):
        source = as_data(source, hold_out=0, name="unlabelled", task="unlabelled")
    more = source.train
    assert isinstance(own, Samples)
    assert isinstance(more, Samples)
    check_scale(more, data)
    content = f"{data.fingerprint} with {source.fingerprint} unlabelled"
    joined = data.with_splits(train=join(own, shaped(more, data)))
    return replace(joined, fingerprint=hashlib.sha256(content.encode()).hexdigest())


def join(own: Samples, more: Samples) -> Samples:
    """Return labelled samples, then unlabelled ones of the same channels and size.

    Args:
        own: The labelled samples.
        more: The others, whose targets are left out.
    """
    if isinstance(own, ResidentImages) and isinstance(more, ResidentImages) and own.targets is not None:
        return ResidentImages(torch.cat([own.images, more.images]), _extended(own.targets, len(more)))
    return Joined(own, more, np.arange(len(own) + len(more)))


class Joined(Samples):
    """Labelled samples and unlabelled ones, each read as it is.

    Args:
        own: The labelled samples.
        more: The unlabelled samples.
        order: Which of them there are: positions in the labelled ones, and from their number on in the others.
    """

    def __init__(self, own: Samples, more: Samples, order: NDArray[np.int64]) -> None:
        self._own, self._more, self._order = own, more, order
        self.is_steady, self.is_decoded = own.is_steady and more.is_steady, own.is_decoded or more.is_decoded
        self.channels, self.size = own.channels, own.size
        self.targets = None
        if own.targets is not None:
            self.targets = _extended(own.targets.cpu(), len(more))[torch.from_numpy(order)]

    @property
    def has_targets(self) -> bool:
        """Whether any sample has a target: the labelled ones have."""
        return True

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        inputs, targets = self.read_batch([index])
        return inputs[0], None if targets is None else targets[0]

    def read_batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the images at `indices` as one batch, and their targets, -1 where there is none."""
        chosen = self._order[np.asarray(indices, dtype=np.int64)]
        labelled = chosen < len(self._own)
        # At least one labelled sample is read, for the shape and the type of its target.
        inputs, targets = self._own.read_batch(
            _positions(self._own, chosen[labelled] if labelled.any() else chosen[:1] * 0)
        )
        assert targets is not None
        found = targets.new_full((len(chosen), *targets.shape[1:]), UNLABELLED)
        images = inputs.new_empty((len(chosen), *inputs.shape[1:]))
        if labelled.any():
            places = torch.from_numpy(np.flatnonzero(labelled))
            images[places], found[places] = inputs.cpu(), targets.cpu()
        if not labelled.all():
            others, _ = self._more.read_batch(_positions(self._more, chosen[~labelled] - len(self._own)))
            images[torch.from_numpy(np.flatnonzero(~labelled))] = _alike(others.cpu(), images)
        return images, found

    def select(self, indices: Indices) -> Joined:
        """Return only the samples at `indices`."""
        return Joined(self._own, self._more, self._order[np.asarray(indices, dtype=np.int64)])

    def with_targets(self, targets: Tensor | None) -> Samples:
        """Refuse other targets: which samples have none is decided.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "This method changes the labels of the training samples, and some have none: leave out --unlabelled."
        )


def _extended(targets: Tensor, more: int) -> Tensor:
    """Return targets with as many more of -1."""
    return torch.cat([targets, targets.new_full((more, *targets.shape[1:]), UNLABELLED)])


def _positions(samples: Samples, chosen: NDArray[np.int64]) -> Any:
    """Return positions as the samples take them: a tensor where they are in memory, else a list."""
    return torch.from_numpy(np.ascontiguousarray(chosen)) if samples.is_resident else chosen.tolist()


def _alike(images: Tensor, like: Tensor) -> Tensor:
    """Return images in the numbers of others: uint8 in 0 to 255, or floats in [0, 1]."""
    if images.is_floating_point() == like.is_floating_point():
        return images.to(like.dtype)
    return images.float() / 255 if like.is_floating_point() else (images * 255).round().to(like.dtype)
