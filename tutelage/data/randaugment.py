"""RandAugment on whole batches: images with the same operation are changed together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from tutelage.data.transforms import centres, nearest, resample
from tutelage.errors import UserError

Operation = Callable[[Tensor, Tensor], Tensor]
"""Maps uint8 images `[batch, channel, height, width]` and their numbers `[batch, 6]` to uint8 images."""

_BLEND, _SHIFT = (0.05, 0.95), (-0.3, 0.3)
MAGNITUDES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "identity": (0, 0),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
        "posterize": (4, 8),
        "solarize": (0, 256),
        "brightness": _BLEND,
        "color": _BLEND,
        "contrast": _BLEND,
        "sharpness": _BLEND,
        "rotate": (-30, 30),
        "shear-x": _SHIFT,
        "shear-y": _SHIFT,
        "translate-x": _SHIFT,
        "translate-y": _SHIFT,
    }
)
"""The smallest and largest magnitude: bits kept, threshold, share of the image, degrees, tangent, share of the side."""

_NAMES = tuple(MAGNITUDES)
# Its number, and the six of an affine map.
_PER_OPERATION = 7
# The affine map that moves nothing.
_STILL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class RandAugment:
    """Change each image by a few operations out of 14, each drawn with replacement and with a random magnitude.

    The tonal operations are those of PIL. Float images are taken to be in [0, 1], and are rounded to 256 levels.
    Parameters, for each operation: its number in `MAGNITUDES`, and six numbers, the rows of an affine map (from output
    to input pixels, about the centre, shifts in shares of the side) or six times the magnitude.

    Differences: The paper has one magnitude for all operations; here it is random, as in FixMatch, whose ranges are
        recalled. Images that move are read bilinearly; places from outside are black.

    Args:
        operations: How many, one after the other.

    Paper: Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space, 2020.
    """

    operations: int = 2

    def __post_init__(self) -> None:
        if self.operations < 1:
            raise UserError(
                f"randaugment needs one operation or more, not {self.operations}: write randaugment:2, or leave it out."
            )

    @property
    def width(self) -> int:
        """Number of parameters of one image."""
        return _PER_OPERATION * self.operations

    def sample(self, generator: Generator, n: int, size: tuple[int, int]) -> Tensor:
        """Draw the operations and magnitudes, `[n, width]`."""
        return torch.cat([_draw(generator, n) for _ in range(self.operations)], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Change each image by its operations.

        Raises:
            UserError: If the images are neither grey nor RGB, or floats outside [0, 1].
        """
        if images.shape[1] not in (1, 3):
            raise UserError(f"randaugment takes grey or RGB images, but these have {images.shape[1]} channels.")
        pixels = as_pixels(images)
        # One transfer from the device for all operations: each transfer waits for the device.
        drawn = parameters[:, ::_PER_OPERATION].T.long().tolist()
        for numbers, chosen in zip(torch.split(parameters, _PER_OPERATION, dim=1), drawn, strict=True):
            pixels = _each_its_own(pixels, chosen, numbers[:, 1:])
        return pixels.to(images.dtype).div_(255) if images.is_floating_point() else pixels

    def apply_to_maps(self, maps: Tensor, parameters: Tensor, outside: float) -> Tensor:
        """Move each map as its image was moved; operations on tones do not change it."""
        still = maps.new_tensor(_STILL, dtype=torch.float32)
        for numbers in torch.split(parameters, _PER_OPERATION, dim=1):
            moves = numbers[:, :1] >= _NAMES.index("rotate")
            maps = nearest(maps, _affine_grid(maps, numbers[:, 1:].where(moves, still)), outside)
        return maps

    def __str__(self) -> str:
        return f"randaugment:{self.operations}"


def as_pixels(images: Tensor) -> Tensor:
    """Return images as uint8: floats in [0, 1] times 255.

    Raises:
        UserError: If floats lie outside [0, 1].
    """
    if not images.is_floating_point():
        return images
    if not ((images >= 0) & (images <= 1)).all():
        raise UserError(
            f"The images go from {images.min():.3g} to {images.max():.3g}, but their tones can only be changed in [0, "
            "1]: pass them as uint8, or as floats before normalisation, and let the network normalise."
        )
    return images.float().mul(255).round_().to(torch.uint8)


def _draw(generator: Generator, n: int) -> Tensor:
    """Draw one operation for each image, `[n, 7]`."""
    drawn = torch.randint(len(_NAMES), (n,), generator=generator)
    low, high = torch.tensor(list(MAGNITUDES.values()), dtype=torch.float64)[drawn].unbind(1)
    magnitude = low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)
    part = {name: magnitude.where(drawn == number, 0.0) for number, name in enumerate(_NAMES)}
    angle = part["rotate"].deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    rows = [cosine, part["shear-x"] - sine, part["translate-x"], part["shear-y"] + sine, cosine, part["translate-y"]]
    # The operations that move pixels are the last of `MAGNITUDES`.
    moves = drawn >= _NAMES.index("rotate")
    numbers = torch.stack(rows, dim=1).where(moves[:, None], magnitude[:, None])
    return torch.cat([drawn[:, None], numbers], dim=1).float()


def _each_its_own(images: Tensor, drawn: list[int], numbers: Tensor) -> Tensor:
    """Change each image by the operation that it drew."""
    groups: dict[Operation, list[int]] = defaultdict(list)
    for position, number in enumerate(drawn):
        if operation := _OPERATIONS.get(_NAMES[number]):
            groups[operation].append(position)
    changed = images.clone()
    # One transfer to the device for all groups.
    order = torch.tensor([position for positions in groups.values() for position in positions], device=images.device)
    for operation, chosen in zip(groups, torch.split(order, [len(positions) for positions in groups.values()])):
        changed[chosen] = operation(images[chosen], numbers[chosen])
    return changed


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = (high - low).int()
    stretched = (images - low).int() * 255 // spread.clamp(min=1)
    return torch.where(spread > 0, stretched.byte(), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    values = images.flatten(2).long()
    counts = values.new_zeros(*images.shape[:2], 256)
    counts.scatter_add_(2, values, values.new_ones(()).expand_as(values))
    # As in PIL: the brightest value that occurs is left out of the count, so that it becomes 255.
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step[..., None] > 0, table.gather(2, values).byte().view_as(images), images)


def _posterize(images: Tensor, numbers: Tensor) -> Tensor:
    # The magnitude is the number of bits that are kept.
    dropped = 8 - _magnitude(numbers).byte()
    return images >> dropped << dropped


def _solarize(images: Tensor, numbers: Tensor) -> Tensor:
    return torch.where(images < _magnitude(numbers), images, 255 - images)


def _brightness(images: Tensor, numbers: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, numbers)


def _color(images: Tensor, numbers: Tensor) -> Tensor:
    return _blend(_grey(images), images, numbers)


def _contrast(images: Tensor, numbers: Tensor) -> Tensor:
    total, count = _grey(images).sum((2, 3), keepdim=True), images.shape[2] * images.shape[3]
    # As in PIL, the mean grey is rounded to a whole number.
    return _blend((2 * total + count) // (2 * count), images, numbers)


def _sharpness(images: Tensor, numbers: Tensor) -> Tensor:
    smooth, pixels = images.float(), images.short()
    # PIL's filter SMOOTH: eight ones around a five, divided by 13.
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    # As in PIL, the outermost pixels are not filtered.
    smooth[:, :, 1:-1, 1:-1] = (total / 13).round()
    return _blend(smooth, images, numbers)


def _affine(images: Tensor, numbers: Tensor) -> Tensor:
    return resample(images, _affine_grid(images, numbers), padding_mode="zeros")


def _affine_grid(images: Tensor, numbers: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    xx, xy, x0, yx, yy, y0 = (value[:, None, None] for value in numbers.unbind(1))
    # In pixels rather than in [-1, 1], which would change the angles of images that are not square.
    x = centres(width, images.device)[None, None, :] * (width / 2)
    y = centres(height, images.device)[None, :, None] * (height / 2)
    grid = [(xx * x + xy * y) / (width / 2) + 2 * x0, (yx * x + yy * y) / (height / 2) + 2 * y0]
    return torch.stack(grid, dim=-1)


_OPERATIONS: Mapping[str, Operation] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "solarize": _solarize,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "rotate": _affine,
    "shear-x": _affine,
    "shear-y": _affine,
    "translate-x": _affine,
    "translate-y": _affine,
}


def _magnitude(numbers: Tensor) -> Tensor:
    return numbers[:, :1, None, None]


def _blend(worst: Tensor, images: Tensor, numbers: Tensor) -> Tensor:
    """Return `worst` at magnitude 0, the images at 1, and the shares in between, cut to whole values."""
    start = worst.float()
    return (start + _magnitude(numbers) * (images.float() - start)).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return the luminance of RGB images, and grey ones as they are: `[batch, 1, height, width]`."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().unbind(1)
    # PIL's luminance: the weights 0.299, 0.587 and 0.114 times 2 to the 16, in whole numbers.
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]
