"""The samples of a split: the common interface of all kinds of data, which loaders use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

Indices = Sequence[int] | NDArray[np.int64]


class Samples(Dataset[Any], ABC):
    """The samples of a split. They read their own batches; a loader chooses the batches and their device.

    Attributes:
        targets: Targets of the samples, `[sample, ...]`; None if they have none.
        is_resident: Whether the samples are tensors in memory, moved to the device once and read there.
        is_steady: Whether a sample is the same each time it is read, so that its copies in a batch share one reading.
        is_decoded: Whether reading decodes files, which worker processes should do.
        channels: Channels of the images; 0 if the inputs are not images of one size.
        size: Height and width of the images in pixels; () if the inputs are not images of one size.
        lengths: The number of tokens of each sample, `[sample]`; None if the samples are padded to no common length.
    """

    targets: Tensor | None
    is_resident: bool = False
    is_steady: bool = True
    is_decoded: bool = False
    channels: int = 0
    size: tuple[int, ...] = ()
    lengths: Tensor | None = None

    @property
    def has_targets(self) -> bool:
        """Whether the samples have targets; maps that are read from files are not in `targets`."""
        return self.targets is not None

    @property
    def groups(self) -> Sequence[int] | None:
        """A number for each sample; only samples of one number can be in a batch. None if all can."""
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def read_batch(self, indices: Any) -> tuple[Any, Tensor | None]:
        """Return the inputs at some positions, collated to a batch, and their targets.

        Args:
            indices: Positions; a tensor for resident samples, a list for others.
        """

    @abstractmethod
    def select(self, indices: Indices) -> Self:
        """Return only the samples at `indices`."""

    @abstractmethod
    def with_targets(self, targets: Tensor | None) -> Samples:
        """Return the same samples with other targets, or with none."""

    def measured(self) -> Samples:
        """Return the samples as a network is measured on them, such as images in their own sizes."""
        return self

    @property
    def taught(self) -> Samples | None:
        """The same samples in another encoding, which the teacher reads; None if it reads what the student reads."""
        return None

    def to(self, device: torch.device | str) -> Samples:
        """Return the same samples on another device; samples that are not resident stay as they are."""
        return self
