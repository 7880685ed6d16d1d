"""Input statistics, and the network that carries its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import UserError, notice, unknown

# The name of images among inputs that have names.
_IMAGES = "pixel_values"
# How far resizing by a smooth filter may leave [0, 1].
_OVERSHOOT = 0.1
# Normalised images stay below this; beyond it they are bytes that were only made floats.
_MOST_NORMALIZED = 16.0


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Mean and standard deviation of each input channel, for inputs in [0, 1].

    One value stands for any number of channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        # Tuples of floats, so that statistics from JSON, from text and from tensors are equal if their numbers are.
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        if not self.mean or len(self.mean) != len(self.std):
            raise UserError(
                f"A normalisation has one mean and one std per channel, not {len(self.mean)} and {len(self.std)}."
            )
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
            raise UserError(f"The means must be finite and the stds positive: {self}.")

    def __str__(self) -> str:
        return ":".join("/".join(map(repr, values)) for values in (self.mean, self.std))

    @classmethod
    def named(cls, name: str) -> Normalization:
        """Return the statistics known as `imagenet`, `cifar10`, `cifar100` or `none`.

        Args:
            name: One of these names.

        Raises:
            UserError: There are no statistics of this name.
        """
        if name not in _NAMED:
            raise unknown("normalisation", name, _NAMED)
        return _NAMED[name]

    @classmethod
    def parse(cls, text: str) -> Normalization:
        """Return the statistics that a text names or spells out.

        Args:
            text: A name, or means and stds such as `0.5/0.5/0.5:0.2/0.2/0.2`.

        Raises:
            UserError: The text is neither.
        """
        if ":" not in text:
            return cls.named(text)
        try:
            mean, std = (tuple(map(float, part.split("/"))) for part in text.split(":"))
        except ValueError as error:
            raise UserError(
                f"{text!r} is not a normalisation: write {', '.join(_NAMED)}, or means and stds as "
                "`0.5/0.5/0.5:0.2/0.2/0.2`."
            ) from error
        return cls(mean=mean, std=std)


_NAMED: Mapping[str, Normalization] = MappingProxyType(
    {
        "imagenet": Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        "cifar10": Normalization(mean=(0.49139968, 0.48215841, 0.44653091), std=(0.24703223, 0.24348513, 0.26158784)),
        "cifar100": Normalization(mean=(0.50707516, 0.48654887, 0.44091784), std=(0.26733429, 0.25643846, 0.27615047)),
        "none": Normalization(mean=(0.0,), std=(1.0,)),
    }
)


class Normalized(nn.Module):
    """A network with its own input normalisation: `model((inputs - mean) / std)`.

    The statistics are not in the state dict, so that the weights of `model` also fit the same network elsewhere.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        spec: str | None = None,
        refusal: str | None = None,
        multiple: int = 1,
    ) -> None:
        """Wrap a network.

        Args:
            model: The bare network, which expects normalised inputs.
            mean: Mean of each channel, for inputs in [0, 1]; one value stands for all channels.
            std: Standard deviation of each channel.
            spec: How the network was built, as `NetworkSpec` reads it; None if it was given as a Python object.
            refusal: Why its answers do not fit the data although their shape does, such as other classes. Its layers
                can still be read.
            multiple: By what the sides of its images must be divisible. Others are filled up at the right and at the
                bottom with the pixels of the edge, and a map of answers is cut back.

        Raises:
            UserError: The statistics do not fit each other.
        """
        super().__init__()
        self.model, self.spec, self._refusal, self._multiple = model, spec, refusal, multiple
        self.normalization = Normalization(mean=tuple(mean), std=tuple(std))
        for name, values in (("mean", self.normalization.mean), ("std", self.normalization.std)):
            # `[1, channel, 1, 1]`, which broadcasts over batch and places.
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @property
    def refusal(self) -> str | None:
        """Why its answers do not fit the data; None if nothing speaks against them."""
        return self._refusal

    @property
    def multiple(self) -> int:
        """By what the sides of its images must be divisible; others are filled up."""
        return self._multiple

    # Positional only, so that `inputs` may also be the name of an input of the network.
    def forward(self, inputs: Tensor | None = None, /, **named: Any) -> Any:
        """Return the network's answer.

        Args:
            inputs: Images `[B, C, H, W]` in [0, 1].
            **named: Inputs by keyword instead. `pixel_values` are images and are normalised; all others, such as tokens
                and their mask, are passed on unchanged.

        Raises:
            UserError: If the images have another number of channels than the statistics, or are integers; or if
                something else than `pixel_values` may be images.
        """
        if inputs is not None:
            return self._filled_up(self._normalized(inputs), named)
        return self.model(**{name: self._named(name, value) for name, value in named.items()})

    def _filled_up(self, images: Tensor, named: Mapping[str, Any]) -> Any:
        """Return the network's answer to images whose sides are filled up to a multiple of what it takes."""
        height, width = images.shape[2:]
        below, beside = -height % self._multiple, -width % self._multiple
        if not (below or beside):
            return self.model(images, **named)
        raw = self.model(F.pad(images, (0, beside, 0, below), mode="replicate"), **named)
        is_whole = isinstance(raw, Tensor) and tuple(raw.shape[2:]) == (height + below, width + beside)
        return raw[..., :height, :width] if is_whole else raw

    def _named(self, name: str, value: Any) -> Any:
        if name == _IMAGES:
            return self._normalized(value)
        # Four axes are images or attention masks. With mean 0 and standard deviation 1 it makes no difference.
        if isinstance(value, Tensor) and value.ndim == 4 and self.normalization != Normalization.named("none"):
            raise UserError(
                f"The network normalises images, but it is not clear whether {name!r} of shape {tuple(value.shape)} "
                f"holds images: name images {_IMAGES!r}, or choose normalize=none."
            )
        return value

    def _normalized(self, inputs: Tensor) -> Tensor:
        channels = self.mean.shape[1]
        if inputs.ndim != 4 or channels not in (1, inputs.shape[1]):
            raise UserError(
                f"The network normalises {channels} channels, but its input has the shape {tuple(inputs.shape)} "
                "(batch, channel, height, width). Load it with this number of in_channels, or choose `normalize=`."
            )
        if not inputs.is_floating_point():
            raise UserError(f"The network expects images in [0, 1], not {inputs.dtype}: divide by 255 first.")
        # The subtraction cancels leading digits, so it is done in float32 even for half-precision networks.
        precise = torch.promote_types(self.mean.dtype, torch.float32)
        return ((inputs.to(precise) - self.mean.to(precise)) / self.std.to(precise)).to(self.mean.dtype)


def tell_range(network: nn.Module, inputs: Any, *, data: str) -> None:
    """Tell that a network which expects images in [0, 1] gets others; nothing fails then, and it learns worse.

    Float images of a user's own dataset reach a network as they are: perhaps normalised already, perhaps 0 to 255. Said
    once for a network and its data.

    Args:
        network: The network. Only one with statistics of its own is looked at; a bare module expects what it gets.
        inputs: Some inputs: images, or a mapping with images under `pixel_values`.
        data: The data's name.
    """
    images = inputs.get(_IMAGES) if isinstance(inputs, Mapping) else inputs
    if not isinstance(network, Normalized) or not isinstance(images, Tensor) or not images.is_floating_point():
        return
    low, high = float(images.min()), float(images.max())
    own, seen = network.normalization, f"The images of {data} go from {low:.3g} to {high:.3g}"
    named = "a network by name" if network.spec is None else network.spec
    changes = set(own.mean) != {0.0} or set(own.std) != {1.0}
    # NaN is in no range, and told of elsewhere.
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        bytes_like = high > _MOST_NORMALIZED
        remedy = "divide them by 255" if bytes_like else f"leave it out of the data, or add normalize=none to {named}"
        if changes:
            again = "normalises them" if bytes_like else "normalises them once more"
            _once(f"{seen}, and {named} expects 0 to 1 and {again} (mean {own.mean}, std {own.std}): {remedy}.")
        elif bytes_like:
            _once(f"{seen}, and reach {named} so: {remedy}.")


_TOLD: set[str] = set()


def _once(text: str) -> None:
    if text not in _TOLD:
        _TOLD.add(text)
        notice(text)


def bare(module: nn.Module) -> nn.Module:
    """Return the network inside `Normalized`, `torch.compile` and data-parallel wrappers.

    Args:
        module: A network, wrapped or not.
    """
    while True:
        if isinstance(module, Normalized):
            module = module.model
        elif isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module
