"""Random tones: brightness, contrast and saturation of an image change, and its map stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tutelage.data.transforms import exact
from tutelage.errors import UserError

# Brightness that the eye sees in red, green and blue (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Colour:
    """Change brightness, contrast and saturation by random factors between 1 - `strength` and 1 + `strength`.

    Contrast is that to the middle grey, not to the image's own mean, so that a pixel's result depends on it alone.
    Float images are taken to be in [0, 1]. Parameters: the three factors.
    """

    strength: float = 0.3
    width = 3

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise UserError(f"colour changes by {self.strength:g}: give more than 0 and at most 1.")

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the factors, `[n, 3]`."""
        drawn = torch.rand((n, 3), generator=generator, dtype=torch.float32)
        return 1 + self.strength * (2 * drawn - 1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Change each image's tones."""
        white = 1.0 if images.is_floating_point() else 255.0
        brightness, contrast, saturation = (factor[:, None, None, None] for factor in parameters.unbind(1))
        pixels = images.float() * brightness
        pixels = (pixels - white / 2) * contrast + white / 2
        if images.shape[1] == 3:
            grey = _LUMA[0] * pixels[:, :1] + _LUMA[1] * pixels[:, 1:2] + _LUMA[2] * pixels[:, 2:]
            pixels = (pixels - grey) * saturation + grey
        pixels = pixels.clamp(0, white)
        return pixels.to(images.dtype) if images.is_floating_point() else pixels.round().to(images.dtype)

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Return the maps as they are: another tone is no other place."""
        return maps

    def __str__(self) -> str:
        return "colour" if self == Colour() else f"colour:{exact(self.strength)}"
