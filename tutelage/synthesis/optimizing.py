"""Making one batch of images: from noise, iteration by iteration, stopped and continued at any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tutelage.synthesis.objective import Objective
from tutelage.synthesis.settings import Settings
from tutelage.synthesis.subject import Subject
from tutelage.system.chance import generator

_LEVELS = 255
_MOMENTUM = 0.9
# The learning rate falls by this factor after this share of the iterations: 800 of the 1,000 of the authors' runs.
_DROP, _DROP_AT = 0.1, 0.8
# Purposes of random numbers, which keep their generators apart.
_START, _VIEW = 0, 1
# A curve has about this many points, however many iterations there are.
_POINTS = 200


@dataclass
class State:
    """How far a batch has come.

    Attributes:
        images: The images in units of the network's statistics, `[image, channel, height, width]`.
        optimizer: The optimizer's own tensors by name; empty before the first iteration.
        iteration: Iterations done.
        curve: The losses after some of the iterations: each a mapping with `iteration`, `loss` and the single losses.
        snapshots: Images in 8 bits by iteration.
    """

    images: Tensor
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    iteration: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    snapshots: dict[int, Tensor] = field(default_factory=dict)


def started(subject: Subject, settings: Settings, batch: int, images: int) -> State:
    """Return noise with the mean and the deviation of the images that the network was trained on.

    Args:
        subject: The network.
        settings: The settings.
        batch: The number of the batch, which decides the noise together with the seed.
        images: How many images there are in it.
    """
    chance = generator(settings.seed, batch, _START)
    # On the CPU, so that the noise is the same on every device.
    noise = torch.randn((images, subject.channels, *subject.size), generator=chance)
    return State(_inside(subject, noise))


def in_bytes(subject: Subject, images: Tensor) -> Tensor:
    """Return images in 8 bits, uint8 `[image, channel, height, width]`, on the CPU.

    Args:
        subject: The network.
        images: The images in units of its statistics.
    """
    return (subject.pixels(images.detach()).clamp(0, 1) * _LEVELS).round().byte().cpu()


def optimize(
    state: State,
    objective: Objective,
    subject: Subject,
    settings: Settings,
    *,
    batch: int,
    targets: Tensor,
    heed: Callable[[State], None],
) -> State:
    """Do all iterations that are left, and return the state after them.

    Args:
        state: Where the batch stands.
        objective: The losses.
        subject: The network.
        settings: The settings.
        batch: The number of the batch.
        targets: The class that each image is made for, `[image]`.
        heed: Called after each iteration with the state; it may raise an error to stop.
    """
    device = next((one.device for one in subject.network.parameters()), torch.device("cpu"))
    images = state.images.to(device).requires_grad_(True)
    targets, optimizer = targets.to(device), _optimizer(images, settings)
    _restore(optimizer, images, state.optimizer)
    every = max(1, settings.iterations // _POINTS)
    for iteration in range(state.iteration, settings.iterations):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * (_DROP if iteration >= _DROP_AT * settings.iterations else 1.0)
        found = _step(images, objective, subject, settings, optimizer, targets, chance=(batch, iteration))
        done = iteration + 1
        if iteration % every == 0 or done == settings.iterations:
            state.curve.append({"iteration": float(done), **found})
        if done in settings.snapshots:
            state.snapshots[done] = in_bytes(subject, images)
        state.images, state.optimizer, state.iteration = images.detach(), _kept(optimizer, images), done
        heed(state)
    state.images = state.images.cpu()
    return state


def _step(
    images: Tensor,
    objective: Objective,
    subject: Subject,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    targets: Tensor,
    *,
    chance: tuple[int, int],
) -> dict[str, float]:
    """Do one iteration, and return its losses."""
    views = _views(subject.pixels(images), settings, chance)
    found = objective(images, views, targets.repeat(settings.copies))
    total = objective.total(found)
    # Of the images alone: the network's parameters are frozen.
    (images.grad,) = torch.autograd.grad(total, images)
    optimizer.step()
    with torch.no_grad():
        # Colours that no image can have are left at once, so that what is optimised is what will be stored.
        images.copy_(_inside(subject, images))
    values = torch.stack([total, *found.values()]).tolist()
    return dict(zip(["loss", *found], values))


def _views(pixels: Tensor, settings: Settings, chance: tuple[int, int]) -> Tensor:
    """Return what the network sees: several views of each image, in [0, 1], `[view, channel, height, width]`."""
    if settings.rounding:
        pixels = _rounded(pixels)
    drawn = generator(settings.seed, chance[0], _VIEW, chance[1])
    if settings.jitter:
        shifts = torch.randint(-settings.jitter, settings.jitter + 1, (2,), generator=drawn).tolist()
        pixels = torch.roll(pixels, shifts, dims=(2, 3))
    augmentation, size = settings.augmentation, (pixels.shape[2], pixels.shape[3])
    views = [augmentation.apply(pixels, augmentation.sample(drawn, len(pixels), size)) for _ in range(settings.copies)]
    return torch.cat(views)


def _rounded(pixels: Tensor) -> Tensor:
    """Return pixels of 256 levels; the gradient passes as if they were not rounded."""
    # Rounding has a gradient of zero everywhere, which would stop the images from changing.
    return pixels + ((pixels.clamp(0, 1) * _LEVELS).round() / _LEVELS - pixels).detach()


def _inside(subject: Subject, images: Tensor) -> Tensor:
    """Return images with every pixel clamped to the colours that there are."""
    return subject.normalized(subject.pixels(images).clamp(0, 1))


def _optimizer(images: Tensor, settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "adam":
        return torch.optim.Adam([images], lr=settings.lr)
    return torch.optim.SGD([images], lr=settings.lr, momentum=_MOMENTUM)


def _kept(optimizer: torch.optim.Optimizer, images: Tensor) -> dict[str, Tensor]:
    state: Mapping[str, Any] = optimizer.state[images]
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _restore(optimizer: torch.optim.Optimizer, images: Tensor, kept: Mapping[str, Tensor]) -> None:
    if kept:
        # The count of steps stays on the CPU, where the optimizer made it.
        optimizer.state[images] = {
            name: value.to(images.device) if value.ndim else value for name, value in kept.items()
        }
