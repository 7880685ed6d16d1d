"""A critic of maps of answers, with self-attention, and the losses by which it and a student play."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tutelage.features.adapting import taken_by
from tutelage.losses import wide

Game = Literal["wgan-gp", "hinge"]
_WIDTHS = (64, 128, 256, 512)
# Four convolutions halve the sides; of smaller maps nothing would be left.
_SMALLEST = 16
_LAST = 4
# With the usual 1e-5, batch norms would multiply the gradients of a batch of nearly equal maps without bound.
_EPS = 1e-2


class SelfAttention(nn.Module):
    r"""Self-attention over the places of a map, $x + \gamma \, V(x) \, \mathrm{softmax}(Q(x)^\top K(x))^\top$.

    $\gamma$ is learned, and zero at first.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, max(1, channels // 8), 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.mT @ key).softmax(dim=2)
        found: Tensor = maps + self.gamma * (value @ attention.mT).view_as(maps)
        return found


class Critic(nn.Module):
    """Gives a map of answers a score: high for the teacher's. It stays in float32 under autocast.

    Maps whose shorter side is below 16 are enlarged to that.

    Args:
        channels: Channels of what it judges.
        size: Height and width of the maps.
        spectral: Whether its convolutions have a spectral norm and a leaky ReLU, as in the authors' code; else a batch
            norm and a ReLU, as in the paper.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, spectral: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(channels, eps=_EPS)]
        before = channels
        for width in _WIDTHS:
            convolution = nn.Conv2d(before, width, 4, 2, 1)
            if spectral:
                layers += [spectral_norm(convolution), nn.LeakyReLU(0.1)]
            else:
                layers += [convolution, nn.BatchNorm2d(width, eps=_EPS), nn.ReLU()]
            if width in _WIDTHS[-2:]:
                layers.append(SelfAttention(width))
            before = width
        height, width = (side // 2 ** len(_WIDTHS) for side in _enlarged(size))
        layers.append(nn.Conv2d(before, 1, (min(_LAST, height), min(_LAST, width))))
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the score of each sample `[batch]`, the mean over its map of scores."""
        raw = wide(maps)
        size = _enlarged((raw.shape[2], raw.shape[3]))
        with torch.autocast(raw.device.type, enabled=False):
            raw = raw if tuple(raw.shape[2:]) == size else F.interpolate(raw, size, mode="bilinear")
            found: Tensor = self.layers(taken_by(self, raw))
        return found.flatten(1).mean(1)


def judged(logits: Tensor, images: Tensor | None) -> Tensor:
    """Return what a critic judges: the logits themselves, or beside the image the probabilities of the classes.

    Of one number a place there are no probabilities, and it is judged itself.

    Args:
        logits: `[batch, class, height, width]`.
        images: `[batch, channel, height, width]` of any size, for a critic that is conditioned on them; or None.
    """
    raw = wide(logits)
    if images is None:
        return raw
    seen = F.interpolate(wide(images), (raw.shape[2], raw.shape[3]), mode="bilinear", align_corners=False)
    return torch.cat([seen.to(raw.dtype), raw.softmax(1) if raw.shape[1] > 1 else raw], dim=1)


def critic_loss(real: Tensor, fake: Tensor, game: Game = "wgan-gp") -> Tensor:
    r"""Return the loss that a critic minimises, beside its gradient penalty.

    $E[D(s)] - E[D(t)]$ (`wgan-gp`), or $E[\max(0, 1 - D(t))] + E[\max(0, 1 + D(s))]$ (`hinge`).

    Args:
        real: Its scores of the teacher's maps, `[batch]`.
        fake: Its scores of the student's maps, `[batch]`.
        game: Which of the two.
    """
    if game == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return fake.mean() - real.mean()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    r"""Return $E[(\|\nabla_x D(x)\|_2 - 1)^2]$ at points between the teacher's maps and the student's.

    Args:
        critic: The critic.
        real: What it judges of the teacher, `[batch, ...]`.
        fake: What it judges of the student, the same shape.
        share: How much of each point is the teacher's, `[batch]`.
    """
    part = share.view(-1, *[1] * (real.ndim - 1))
    points = (part * real.detach() + (1 - part) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    lengths = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    penalty: Tensor = (lengths - 1).square().mean()
    return penalty


def _enlarged(size: tuple[int, int]) -> tuple[int, int]:
    """Return a size whose shorter side is 16 at least, of the same shape."""
    shorter = min(size)
    if shorter >= _SMALLEST:
        return size
    height, width = (round(side * _SMALLEST / shorter) for side in size)
    return height, width
