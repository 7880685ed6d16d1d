"""FitNets' regressor: it maps a map of the student to the shape of a map of the teacher."""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.features.maps import resize
from tutelage.features.padding import through


class Regressor(nn.Module):
    """Maps the student's map to the shape of the teacher's: a convolution, a batch norm, and a ReLU if asked for.

    Height and width follow the same rules, each by itself, from the student's size to the teacher's. Equal sizes: a
    kernel of 1. Half the size (rounded up): a kernel of 3 at stride 2. Any other smaller size: a kernel of one more
    than the difference, without padding. Twice the size: a transposed convolution with a kernel of 4 at stride 2. Any
    other larger size: a 1x1 convolution, then interpolation.

    Args:
        channels: Channels of the student's map.
        size: Its height and width, on the example.
        teacher_channels: Channels of the teacher's map.
        teacher_size: Its height and width, on the example.
        final_relu: Whether it ends in a ReLU.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        teacher_channels: int,
        teacher_size: tuple[int, int],
        *,
        final_relu: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = _convolution(channels, size, teacher_channels, teacher_size)
        self.norm = nn.BatchNorm2d(teacher_channels)
        self.activation = nn.ReLU() if final_relu else nn.Identity()

    def forward(self, maps: Tensor, size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """Return `[batch, teacher_channel, height, width]`.

        Args:
            maps: The student's map, `[batch, channel, height, width]`.
            size: Height and width of the teacher's map for the same inputs. Sequences may differ in length.
            mask: Places of both maps that are not padding, `[batch, 1, height, width]`.

        Raises:
            UserError: If there is padding, and the two maps had different sizes on the example.
        """
        regressed = through(self.norm, resize(through(self.convolution, maps, mask), size), mask)
        activated: Tensor = self.activation(regressed)
        return activated


def _convolution(
    channels: int, size: tuple[int, int], teacher_channels: int, teacher_size: tuple[int, int]
) -> nn.Module:
    # Height and width, each with the student's and the teacher's size.
    sizes = list(zip(size, teacher_size, strict=True))
    # Equal or smaller in both directions: one convolution leads there.
    if all(ours >= theirs for ours, theirs in sizes):
        kernel, stride, padding = zip(*(_shrinking(ours, theirs) for ours, theirs in sizes), strict=True)
        return nn.Conv2d(channels, teacher_channels, kernel, stride, padding)
    # Equal or twice as large: a transposed convolution does the inverse of a stride of 2.
    if all(theirs in (ours, 2 * ours) for ours, theirs in sizes):
        kernel, stride, padding = zip(
            *((1, 1, 0) if ours == theirs else (4, 2, 1) for ours, theirs in sizes), strict=True
        )
        return nn.ConvTranspose2d(channels, teacher_channels, kernel, stride, padding)
    # Anything else is brought to its size by interpolation in `forward`.
    return nn.Conv2d(channels, teacher_channels, 1)


def _shrinking(ours: int, theirs: int) -> tuple[int, int, int]:
    """Return kernel, stride and padding that lead from one size to a smaller one."""
    if ours > theirs and (ours + 1) // 2 == theirs:
        return 3, 2, 1
    return 1 + ours - theirs, 1, 0
