"""Padding: which tokens count, and how means, batch norms and convolutions leave out the padding.

A mask is `[batch, 1, height, width]`, true where a place is a token of the sample. Without a mask, as for images, every
function here is the plain operation. Samples of different lengths weigh the same, because means are taken over the
places of each sample first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import relu

from tutelage.errors import UserError
from tutelage.losses import wide
from tutelage.models.zoo.resnet import Residual

ATTENTION_MASK = "attention_mask"
"""Name of the mask among inputs that have names: `[batch, token]`, zero for padding."""


def image_size(inputs: Any) -> tuple[int, int] | None:
    """Return height and width of the images among some inputs; None if there are none."""
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    shapes = (one.shape for name, one in named.items() if isinstance(one, Tensor) and name != ATTENTION_MASK)
    return next(((shape[2], shape[3]) for shape in shapes if len(shape) == 4), None)


def valid_tokens(inputs: Any) -> Tensor | None:
    """Return the mask of the tokens among some inputs; None if they have none, or are images."""
    mask = inputs.get(ATTENTION_MASK) if isinstance(inputs, Mapping) else None
    return mask if isinstance(mask, Tensor) and image_size(inputs) is None else None


def without_padding(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return maps `[batch, channel, height, width]` with zeros for padding."""
    return maps if mask is None else maps.masked_fill(~mask, 0)


def places(mask: Tensor) -> Tensor:
    """Return the number of places of each sample, `[batch]`; at least one, so that dividing by it is safe."""
    return mask.flatten(1).sum(1).clamp(min=1)


def mean_over_places(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of each sample over its places, `[batch, channel]`.

    Args:
        maps: `[batch, channel, height, width]`.
        mask: Its places that are not padding, `[batch, 1, height, width]`.
    """
    if mask is None:
        return maps.mean((2, 3))
    # Half precision would lose digits in the sum over many places.
    total = wide(without_padding(maps, mask)).sum((2, 3))
    return (total / places(mask)[:, None]).to(maps.dtype)


def mean_of_squares(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the squares of each channel, over the places of a sample and then over samples, `[channel]`.

    Args:
        values: `[batch, channel, height, width]`.
        mask: Its places that are not padding, `[batch, 1, height, width]`.
    """
    return (without_padding(values, mask).square().sum((2, 3)) / places(mask)[:, None]).mean(0)


def through(module: nn.Module, maps: Tensor, mask: Tensor | None) -> Tensor:
    """Return the module's output for maps as if each sample ended with its last token.

    A convolution sees zeros instead of padding, as it does outside of a map. A batch norm takes its statistics from
    places that are not padding.

    Args:
        module: Convolutions that keep the size of a map, batch norms, activations, and sequences and residual blocks
            of them.
        maps: `[batch, channel, height, width]`.
        mask: Its places that are not padding, `[batch, 1, height, width]`.

    Raises:
        UserError: If the module has any other part, which may mix places with padding.
    """
    if mask is None:
        return module(maps)  # type: ignore[no-any-return]
    match module:
        case nn.Sequential():
            for part in module:
                maps = through(part, maps, mask)
            return maps
        case Residual():
            return relu(through(module.body, maps, mask) + through(module.shortcut, maps, mask))
        case nn.BatchNorm2d():
            return _normalized(module, maps, mask)
        case nn.Conv2d() if _keeps_size(module):
            return module(without_padding(maps, mask))  # type: ignore[no-any-return]
        case nn.ReLU() | nn.LeakyReLU() | nn.Identity():
            return module(maps)  # type: ignore[no-any-return]
    raise padded(f"a {type(module).__name__} changes the size of its map, or mixes places")


def padded(why: str) -> UserError:
    """Return the error for padded inputs where padding cannot be left out.

    Args:
        why: The reason, as part of a sentence.
    """
    return UserError(
        f"These inputs are padded ({ATTENTION_MASK}), and padding cannot be left out here: {why}. Choose layers whose "
        "output has one place for each token, or a method that reads only logits, such as kd."
    )


def _keeps_size(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution keeps the size of its map, with zeros around it."""
    keeps = all(
        step == 1 and pad == spread * (side - 1) // 2 and side % 2
        for side, step, pad, spread in zip(
            convolution.kernel_size, convolution.stride, _sides(convolution), convolution.dilation, strict=True
        )
    )
    return keeps and convolution.padding_mode == "zeros"


def _sides(convolution: nn.Conv2d) -> tuple[int, ...]:
    if isinstance(convolution.padding, str):
        return tuple(
            spread * (side - 1) // 2 if convolution.padding == "same" else 0
            for side, spread in zip(convolution.kernel_size, convolution.dilation, strict=True)
        )
    return tuple(convolution.padding)


def _normalized(norm: nn.BatchNorm2d, maps: Tensor, mask: Tensor) -> Tensor:
    """Return maps normalised by the statistics of their places, with zeros for padding."""
    chosen = mask[:, 0]
    # Each place becomes a sample of one pixel: statistics then cover all places, and the running ones follow as usual.
    rows: Tensor = norm(maps.movedim(1, 3)[chosen][:, :, None, None])[:, :, 0, 0]
    found = rows.new_zeros(*chosen.shape, rows.shape[1])
    found[chosen] = rows
    return found.movedim(3, 1)
