"""What synthesised images are made to do: the losses of a scheme on a batch of views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.features.batch_norms import Moments, hearing, moments_of, reached, remembered
from tutelage.losses import cross_entropy
from tutelage.models.answers import answer
from tutelage.synthesis import losses
from tutelage.synthesis.settings import Settings
from tutelage.synthesis.subject import Subject

# So that an image of one colour has a finite divergence; the layers bring epsilons of their own.
_INPUT_FLOOR = 1e-5


class Statistics:
    """The batch-norm statistics of a network, and those of what it is shown.

    Args:
        subject: The network.

    Raises:
        UserError: If it has no batch norm with running statistics.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        example = torch.full((2, subject.channels, *subject.size), 0.5, device=_device(subject.network))
        self._layers = reached(subject.network, example)
        self._kept = {name: remembered(layer) for name, layer in self._layers.items()}

    def __call__(self, pixels: Tensor, *, with_input: bool = True) -> tuple[Tensor, list[tuple[str, Moments, Moments]]]:
        """Return the network's logits, and for each layer its name and the moments found and remembered.

        Args:
            pixels: Images in [0, 1], `[batch, channel, height, width]`.
            with_input: Whether the images count as one more layer, `input`, where the network tells their statistics.
        """
        with hearing(self._layers) as heard:
            logits = answer(self._subject.network, pixels)
        pairs = [(name, found, self._kept[name]) for name, found in heard]
        if with_input and self._subject.statistics is not None:
            pairs.insert(0, ("input", *self._input(pixels)))
        return logits, pairs

    def _input(self, pixels: Tensor) -> tuple[Moments, Moments]:
        found = moments_of(self._subject.normalized(pixels), floor=_INPUT_FLOOR)
        zeros = torch.zeros_like(found.mean)
        return found, Moments(zeros, zeros + 1, floor=_INPUT_FLOOR)


class Objective:
    """The losses of a scheme.

    Args:
        subject: The network.
        settings: The settings.
        rival: A student that should disagree with the network, for DeepInversion's competition; None without it.

    Raises:
        UserError: If the scheme needs batch norms and there is none, or the competition lacks a rival.
    """

    def __init__(self, subject: Subject, settings: Settings, rival: nn.Module | None = None) -> None:
        if ("competition" in settings.weights) != (rival is not None):
            raise UserError(
                "The competition of deepinversion takes a student: name it with --rival (rival= in Python), and give "
                "it a weight, --weights competition=1."
            )
        self._subject, self._settings, self._rival = subject, settings, rival
        self._statistics = _statistics(subject, settings)

    def __call__(self, images: Tensor, views: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the losses by name, each an unweighted scalar.

        Args:
            images: The images in units of the network's statistics, `[image, channel, height, width]`.
            views: Views of them in [0, 1], `[batch, channel, height, width]`.
            targets: The class that each view is made for, `[batch]`.
        """
        names, settings = self._settings.weights, self._settings
        logits, pairs = self._look(views)
        found: dict[str, Tensor] = {}
        if "statistics" in names:
            found["statistics"] = losses.statistics_loss([pair[1:] for pair in pairs], settings.direction)
        if "features" in names:
            found["features"] = losses.feature_distance([pair[1:] for pair in pairs])
        if "class" in names:
            found["class"] = losses.likely_class(logits, targets)
        if "ce" in names:
            found["ce"] = cross_entropy(logits, targets)
        if self._rival is not None:
            found["competition"] = losses.agreement(answer(self._rival, views), logits)
        return found | self._priors(images)

    def total(self, found: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of losses, a scalar."""
        terms = [self._settings.weights[name] * loss for name, loss in found.items()]
        return torch.stack(terms).sum()

    def _look(self, pixels: Tensor) -> tuple[Tensor, list[Any]]:
        if self._statistics is None:
            return answer(self._subject.network, pixels), []
        # DeepInversion compares the layers alone.
        return self._statistics(pixels, with_input="statistics" in self._settings.weights)

    def _priors(self, images: Tensor) -> dict[str, Tensor]:
        every: Mapping[str, Callable[[Tensor], Tensor]] = {
            "smoothness": losses.roughness,
            "variation": losses.total_variation,
            "length": torch.linalg.vector_norm,
        }
        return {name: loss(images) for name, loss in every.items() if name in self._settings.weights}


def _statistics(subject: Subject, settings: Settings) -> Statistics | None:
    if not settings.needs_statistics:
        return None
    try:
        return Statistics(subject)
    except UserError as error:
        raise UserError(
            f"The scheme {settings.scheme} reads batch-norm statistics, and {subject.name} cannot give them. {error} "
            "Take --scheme inception or gaussian, which need none."
        ) from error


def _device(network: nn.Module) -> torch.device:
    tensors = (*network.parameters(), *network.buffers())
    return next((one.device for one in tensors), torch.device("cpu"))
