"""Maps as Gaussians: how far two maps are apart in the means and the deviations of their channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.features.padding import mean_over_places, padded, places, without_padding
from tutelage.losses import wide

ProjectorKind = Literal["conv", "bottleneck"]
_HIDDEN = 256


def projected_by(kind: ProjectorKind, channels: int, teacher_channels: int, *, final_relu: bool) -> nn.Sequential:
    """Return the layers that bring a map of the student to the teacher's width.

    Args:
        kind: `conv` is a 1x1 convolution; `bottleneck` is a 1x1, a 3x3 and a 1x1 convolution, with 256 channels inside
            and nothing between them. A batch norm follows.
        channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        final_relu: Whether a ReLU ends it.
    """
    # The convolutions have biases, and nothing stands between them, as in the authors' code.
    layers: list[nn.Module] = [nn.Conv2d(channels, teacher_channels, 1)]
    if kind == "bottleneck":
        inner = nn.Conv2d(_HIDDEN, _HIDDEN, 3, padding=1)
        layers = [nn.Conv2d(channels, _HIDDEN, 1), inner, nn.Conv2d(_HIDDEN, teacher_channels, 1)]
    layers.append(nn.BatchNorm2d(teacher_channels))
    return nn.Sequential(*layers, nn.ReLU()) if final_relu else nn.Sequential(*layers)


def wkd_feature_loss(
    student: Tensor,
    teacher: Tensor,
    mean_weight: float = 1.0,
    grid: int = 1,
    *,
    ddof: Literal[0, 1] = 0,
    eps: float = 1e-5,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return $r \, \|m^s - m^t\|^2 + \|\sigma^s - \sigma^t\|^2$, the mean over the batch and the cells of the maps.

    It is the squared 2-Wasserstein distance of Gaussians without covariances, for $r = 1$.

    Args:
        student: The student's map after a projector, `[batch, channel, height, width]`.
        teacher: The teacher's, with as many channels, and its own height and width; no gradient flows into it.
        mean_weight: $r$.
        grid: Cells along each side; no more than the smaller map has places there.
        ddof: What is taken from the number of places to divide the variance by; a cell of one place has none.
        eps: What is added to each variance.
        mask: Places that are not padding, `[batch, 1, height, width]`.

    Raises:
        UserError: If there is padding, and more than one cell.
    """
    # A cell has at least one place in both maps, which may differ in size.
    rows, columns = (min(grid, student.shape[axis], teacher.shape[axis]) for axis in (2, 3))
    if mask is not None and rows * columns > 1:
        raise padded("a cell of a map may hold nothing else; with grid=1 there is one cell")
    terms = []
    for ours, theirs in zip(cells(student, rows, columns), cells(teacher.detach(), rows, columns), strict=True):
        (mean, spread), (other_mean, other_spread) = (moments(cell, ddof, eps, mask) for cell in (ours, theirs))
        apart = mean_weight * (mean - other_mean).square() + (spread - other_spread).square()
        terms.append(apart.sum(1).mean())
    return torch.stack(terms).mean()


def cells(maps: Tensor, rows: int, columns: int) -> list[Tensor]:
    """Return the cells of a map, row by row. Where its sides do not divide, neighbours overlap.

    Args:
        maps: `[batch, channel, height, width]`.
        rows: Cells from top to bottom.
        columns: Cells from left to right.
    """
    down, across = _windows(maps.shape[2], rows), _windows(maps.shape[3], columns)
    return [maps[:, :, one, other] for one in down for other in across]


def moments(cell: Tensor, ddof: int, eps: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of each channel over the places, each `[batch, channel]`.

    Args:
        cell: `[batch, channel, height, width]`.
        ddof: What is taken from the number of places to divide the variance by.
        eps: What is added to the variance.
        mask: Places that are not padding, `[batch, 1, height, width]`.
    """
    # Squares of half precision would overflow or vanish.
    values = wide(cell)
    mean = mean_over_places(values, mask)
    squares = without_padding(values - mean[:, :, None, None], mask).square().sum((2, 3))
    if mask is None:
        # A cell of one place has a variance of zero, not of zero over zero.
        variance = squares / max(1, cell.shape[2:].numel() - ddof)
    else:
        variance = squares / (places(mask) - ddof).clamp(min=1)[:, None]
    # The root has no finite gradient at zero, which `eps` avoids.
    return mean, (variance + eps).sqrt()


def _windows(size: int, count: int) -> list[slice]:
    """Return the windows of adaptive pooling along one side."""
    return [slice(number * size // count, -(-(number + 1) * size // count)) for number in range(count)]
