"""Several crops of an image in a batch, and mixtures of them, for FKD and FerKD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.core.method import TransferSet
from tutelage.data.samplers import RepeatedBatches
from tutelage.errors import UserError
from tutelage.features.maps import resize
from tutelage.losses import check_shapes, check_temperature, wide
from tutelage.system import processes

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples


def in_crops(dataset: AnySamples, *, crops: int, batch_size: int, single_from: int | None) -> TransferSet:
    """Return the data in batches of several crops of each image.

    Args:
        dataset: The samples.
        crops: Crops of an image in a batch.
        batch_size: Crops in a batch, over all processes.
        single_from: First epoch that shows one crop of each image; None if there is no such epoch.

    Raises:
        UserError: If the data are a DataLoader, or the crops or the processes do not divide the batch.
    """
    # One crop of each image is what any other method trains on.
    if crops == 1:
        return TransferSet(dataset)
    if isinstance(dataset, DataLoader):
        raise UserError(
            f"{crops} crops of an image in a batch need samples by position: pass the dataset instead of a DataLoader, "
            "or take crops=1."
        )
    several = processes.count()
    if batch_size % (crops * several):
        shared = f", shared by {several} processes," if several > 1 else ""
        raise UserError(
            f"A batch of {batch_size}{shared} cannot hold {crops} crops of each image: take a batch size that is a "
            f"multiple of {crops * several}, or another number of crops."
        )
    images: Any = dataset
    # Processes share a batch evenly, so a smaller last one is dropped.
    batches = RepeatedBatches(
        len(images), batch_size=batch_size, repeats=crops, single_from=single_from, drop_last=several > 1
    )
    # A section has one crop of each image; a recording must have at least as many views.
    return TransferSet(dataset, batches, sections=crops, views=crops)


def first_single_epoch(epochs: int | None, crops: int) -> int | None:
    """Return the first epoch that shows one crop of each image: `crops` before the end, in the second half.

    Args:
        epochs: Length of the run; None if it is not known, and then there is no such epoch.
        crops: Crops of an image in a batch, in the epochs before.
    """
    return None if epochs is None else epochs - min(crops, epochs // 2)


def check_crops(crops: int, temperature: float, mixup: float, cutmix: float) -> None:
    """Refuse numbers that are out of their range.

    Raises:
        UserError: If there is less than one crop, the temperature is not above zero, or a Beta parameter is negative.
    """
    if crops < 1:
        raise UserError(f"crops={crops} must be one or more.")
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
    for name, value in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= value < float("inf"):
            raise UserError(f"{name}={value} must be a parameter of the Beta distribution, or 0 for none.")


def soft_label_losses(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    r"""Return $-\sum_k q_k \log \mathrm{softmax}(z / T)_k$ of each sample or place, `[batch, ...]`.

    Args:
        logits: $z$, `[batch, class]` (or `[batch, class, ...]`).
        targets: $q$, of the same shape; they sum to one over the classes.
        temperature: $T$.

    Raises:
        ValueError: If the two shapes differ, or the temperature is not above zero.
    """
    check_shapes(logits, targets)
    check_temperature(temperature)
    return -(targets * F.log_softmax(wide(logits) / temperature, dim=1)).sum(1)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The pairs of samples to mix, and the places where they are mixed.

    Attributes:
        partners: Index of the sample that each is mixed with, `[batch]`. A sample that is its own partner is unchanged.
        shares: The partner's share at each pixel, `[height, width]`, float32, from 0 to 1.
    """

    partners: Tensor
    shares: Tensor

    def of_images(self, images: Tensor) -> Tensor:
        """Return the mixed images `[batch, channel, height, width]`, computed in float32, in the images' dtype."""
        # In half precision a mixture would be rounded at every pixel.
        one, other = wide(images), wide(images[self.partners])
        return torch.lerp(one, other, self.shares.to(one.dtype)).to(images.dtype)

    def of_labels(self, labels: Tensor) -> Tensor:
        """Return the soft labels of the mixed images, linear in the partner's share of the pixels.

        Args:
            labels: `[batch, class]`; or `[batch, class, height, width]`, mixed by the partner's share at each place.
        """
        if labels.ndim == 4:
            # A map of labels may be smaller than the image: each of its places takes the mean share of its pixels.
            shares = resize(self.shares[None, None], (labels.shape[2], labels.shape[3]))[0, 0]
        else:
            shares = self.shares.mean()
        return torch.lerp(labels, labels[self.partners], shares.to(labels.dtype))


def draw_shares(images: Any, *, mixup: float, cutmix: float) -> Tensor:
    r"""Return the partner's share at each pixel, `[height, width]`, in float32: one draw for a batch.

    Mixup has $1 - \lambda$ everywhere. CutMix has 1 in a box of $\sqrt{1 - \lambda}$ of the height and the width around
    a random point, cut at the border of the image, and 0 elsewhere. If both are asked for, a fair coin chooses one.

    Args:
        images: `[batch, channel, height, width]`, floats.
        mixup: $\alpha$ of $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ for Mixup; 0 for none.
        cutmix: $\alpha$ for CutMix; 0 for none. One of the two must be above zero.

    Raises:
        UserError: If the inputs are not images.
    """
    if not (isinstance(images, Tensor) and images.is_floating_point() and images.ndim == 4):
        raise UserError("Mixup and CutMix need images: for other inputs, use mixup=0 and cutmix=0.")
    device, (height, width) = images.device, images.shape[2:]
    whole = (1 - _beta(mixup, device)).expand(height, width) if mixup else None
    box = _box(height, width, 1 - _beta(cutmix, device)) if cutmix else None
    if whole is None or box is None:
        drawn = box if whole is None else whole
        assert drawn is not None, "one of the two is asked for"
        return drawn
    # Both are drawn, and the device chooses: an `if` would make the CPU wait for it.
    return torch.where(torch.rand((), device=device) < 0.5, whole, box)


def _box(height: int, width: int, area: Tensor) -> Tensor:
    inside = []
    for length in (height, width):
        centre = length * torch.rand((), device=area.device)
        # The centres of the pixels.
        pixels = torch.arange(length, device=area.device) + 0.5
        inside.append((pixels - centre).abs() < length * area.sqrt() / 2)
    rows, columns = inside
    return (rows[:, None] & columns).float()


def _beta(parameter: float, device: torch.device) -> Tensor:
    concentration = torch.full((), parameter, device=device)
    # Validating the arguments would make the CPU wait for the device.
    return torch.distributions.Beta(concentration, concentration, validate_args=False).sample()
