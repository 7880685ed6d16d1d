"""The losses of synthesised images. Each is a function of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.features.batch_norms import Moments
from tutelage.losses import wide

Direction = Literal["code", "paper"]

# Of the Gaussian blur that smooth images resemble, in pixels.
_BLUR_SIDE, _BLUR_SIGMA = 5, 1.0
# The class term of the authors' code is exp(-0.0004 z).
_CLASS_SCALE = 4e-4
# The temperature at which DeepInversion compares teacher and student.
_COMPETITION_TEMPERATURE = 3.0


def divergence(found: Moments, remembered: Moments, direction: Direction = "code") -> Tensor:
    r"""Return how far apart two Gaussians are, channel by channel, `[channel]`, in nats.

    With $r = \tilde\sigma^2 / \hat\sigma^2$ and $d = \tilde\mu - \hat\mu$, where a tilde means found and a hat means
    remembered:

    $$ \text{code: } \mathrm{KL}(\tilde N \,\|\, \hat N) = \tfrac{1}{2} \big(r + d^2 / \hat\sigma^2 - 1 - \ln r\big),
       \qquad
       \text{paper: } \mathrm{KL}(\hat N \,\|\, \tilde N) =
       \tfrac{1}{2} \big(1 / r + d^2 / \tilde\sigma^2 - 1 + \ln r\big) $$

    The floor of the remembered moments, the epsilon of the batch norm, is added to both variances. So a channel whose
    remembered variance is exactly zero has a finite divergence, which is zero if it is dead here too.

    Args:
        found: The moments of the data.
        remembered: The moments that the network remembers.
        direction: `code` as in the authors' code, `paper` as in their equation.
    """
    there, here = remembered.variance + remembered.floor, found.variance + remembered.floor
    ratio, distance = here / there, (found.mean - remembered.mean).square()
    if direction == "code":
        return (ratio + distance / there - 1 - ratio.log()) / 2
    return (1 / ratio + distance / here - 1 + ratio.log()) / 2


def statistics_loss(pairs: Sequence[tuple[Moments, Moments]], direction: Direction = "code") -> Tensor:
    """Return the divergence of several layers: the mean over the channels of each, then over the layers; a scalar.

    Args:
        pairs: For each layer the moments found and remembered.
        direction: See `divergence`.
    """
    return torch.stack([divergence(found, kept, direction).mean() for found, kept in pairs]).mean()


def feature_distance(pairs: Sequence[tuple[Moments, Moments]], first_weight: float = 1.0) -> Tensor:
    r"""Return DeepInversion's $\sum_l \|\mu_l - \hat\mu_l\|_2 + \|\sigma^2_l - \hat\sigma^2_l\|_2$, a scalar.

    Args:
        pairs: For each layer the moments found and remembered.
        first_weight: Factor on the first layer.
    """
    terms = [_length(found.mean - kept.mean) + _length(found.biased_variance - kept.variance) for found, kept in pairs]
    return first_weight * terms[0] + sum(terms[1:], start=torch.zeros_like(terms[0]))


def likely_class(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Return the authors' class term $\exp(-0.0004 \, \bar z)$, $\bar z$ the mean of the target logits; a scalar.

    Args:
        logits: `[batch, class]`.
        targets: Class indices `[batch]`.
    """
    chosen = wide(logits).gather(1, targets[:, None])
    return torch.exp(-_CLASS_SCALE * chosen.mean())


def roughness(images: Tensor) -> Tensor:
    r"""Return the mean square of the difference between images and their Gaussian blur ($5 \times 5$, $\sigma = 1$).

    Args:
        images: `[batch, channel, height, width]`; beyond the edge they count as zero.
    """
    offsets = torch.arange(_BLUR_SIDE, dtype=images.dtype, device=images.device) - _BLUR_SIDE // 2
    line = torch.exp(-offsets.square() / (2 * _BLUR_SIGMA**2))
    line = line / line.sum()
    channels = images.shape[1]
    # One direction after the other, which is the same as the square kernel.
    blurred = images
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        kernel = line.view(shape).expand(channels, 1, *line.view(shape).shape[2:])
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
        blurred = F.conv2d(blurred, kernel, padding=padding, groups=channels)
    return F.mse_loss(images, blurred)


def total_variation(images: Tensor) -> Tensor:
    """Return DeepInversion's total variation: the lengths of the batch's differences in four directions, added up.

    They are lengths and not means, so the term grows with the square root of the batch size.

    Args:
        images: `[batch, channel, height, width]`.
    """
    return (
        _length(images[..., :, 1:] - images[..., :, :-1])
        + _length(images[..., 1:, :] - images[..., :-1, :])
        + _length(images[..., 1:, 1:] - images[..., :-1, :-1])
        + _length(images[..., 1:, :-1] - images[..., :-1, 1:])
    )


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Return DeepInversion's competition $1 - \mathrm{JS}(p_t, p_s)$ at temperature 3, a scalar; low if they disagree.

    The Jensen-Shannon divergence is in units of $\ln 2$, so the term is between 0 and 1.

    Args:
        student: `[batch, class]`.
        teacher: `[batch, class]`.
    """
    ours, theirs = (F.log_softmax(wide(one) / _COMPETITION_TEMPERATURE, 1) for one in (student, teacher))
    middle = torch.logaddexp(ours, theirs) - math.log(2)
    parts = [F.kl_div(middle, one, reduction="batchmean", log_target=True) for one in (ours, theirs)]
    return 1 - (parts[0] + parts[1]) / (2 * math.log(2))


def _length(values: Tensor) -> Tensor:
    """Return the Euclidean length of all values together; at zero its gradient is zero."""
    found: Tensor = torch.linalg.vector_norm(wide(values))
    return found
