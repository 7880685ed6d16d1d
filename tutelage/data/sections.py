"""An augmentation for each section of a batch, so that a batch shows views of different strength."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tutelage.data.augment import Augmentation
from tutelage.errors import UserError


@dataclass(frozen=True)
class SectionedAugmentation(Augmentation):
    """Changes each of the equal sections of a batch in a way of its own.

    Attributes:
        sections: The augmentation of each section, in order.
    """

    sections: tuple[Augmentation, ...] = ()

    @property
    def width(self) -> int:
        """Number of parameters of one image: those of the widest section."""
        return max(section.width for section in self.sections)

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the parameters of `n` images, float32 `[n, width]`; unused ones are 0.

        Args:
            generator: The CPU generator from which all random numbers are drawn.
            n: The number of images, in equal sections.
            size: Their height and width in pixels.
        """
        drawn = torch.zeros(n, self.width)
        for section, rows in zip(self.sections, drawn.chunk(len(self.sections)), strict=True):
            rows[:, : section.width] = section.sample(generator, len(rows), size)
        return drawn

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Return the images, each section changed by its own augmentation.

        Args:
            images: `[batch, channel, height, width]`, uint8 or float.
            parameters: `[batch, width]` from `sample`, or equal parts of its sections.

        Raises:
            UserError: If the images are not in equal sections.
        """
        return self._each(images, parameters, lambda section, part, own: section.apply(part, own))

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, *, outside: float) -> Tensor:
        """Return maps that belong to the images, moved by the same parameters.

        Args:
            maps: `[batch, height, width]` or `[batch, channel, height, width]`.
            parameters: The parameters that changed the images.
            outside: Value of places from outside the map.
        """
        return self._each(
            maps, parameters, lambda section, part, own: section.apply_to_maps(part, own, outside=outside)
        )

    def _each(
        self, values: Tensor, parameters: Tensor, change: Callable[[Augmentation, Tensor, Tensor], Tensor]
    ) -> Tensor:
        if len(values) % len(self.sections):
            raise UserError(f"{len(values)} images are not {len(self.sections)} equal sections.")
        count = len(values) // len(self.sections)
        parts = zip(self.sections, torch.split(values, count), torch.split(parameters, count), strict=True)
        return torch.cat([change(section, part, own[:, : section.width]) for section, part, own in parts])

    def __str__(self) -> str:
        return " | ".join(map(str, self.sections))

    def __bool__(self) -> bool:
        return any(self.sections)
