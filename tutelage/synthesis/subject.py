"""The network that is asked for images, and what is known of the images that it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.teachers import Teacher
from tutelage.data.dataset import Data
from tutelage.data.images import ResidentImages
from tutelage.errors import UserError, notice
from tutelage.models.answers import answer
from tutelage.models.blueprint import Source, blueprint, check_classes
from tutelage.models.classes import with_own_classes
from tutelage.models.copies import copy_of, freeze
from tutelage.models.modes import evaluating
from tutelage.models.normalization import Normalization, Normalized, bare
from tutelage.models.saving import metadata_of
from tutelage.models.scores import check_scores
from tutelage.models.spec import NetworkSpec
from tutelage.system.digests import of_tensors

TeacherSource = Source | Teacher
# Stands for the statistics of images in [0, 1] of a network that does not tell them.
_UNKNOWN = Normalization(mean=(0.5,), std=(0.25,))
_COLOUR = 3


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network whose knowledge is turned into images.

    Attributes:
        network: The network, frozen, in eval mode; it takes images in [0, 1].
        name: Its name.
        weights: Digest of its parameters and buffers.
        class_names: One name for each class.
        channels: Channels of its images.
        size: Their height and width in pixels.
        statistics: Mean and standard deviation of the images that it was trained on; None if it does not tell.
    """

    network: nn.Module
    name: str
    weights: str
    class_names: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    statistics: Normalization | None

    @property
    def space(self) -> Normalization:
        """The statistics in which noise is drawn; where the network tells none, mean 0.5 and deviation 0.25."""
        return self.statistics or _UNKNOWN

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return images in [0, 1], `[batch, channel, height, width]`, in units of `space`."""
        mean, std = (_column(values, pixels) for values in (self.space.mean, self.space.std))
        return (pixels - mean) / std

    def pixels(self, normalized: Tensor) -> Tensor:
        """Return images in units of `space` as images in [0, 1], without clamping them."""
        mean, std = (_column(values, normalized) for values in (self.space.mean, self.space.std))
        return normalized * std + mean

    def to(self, device: str) -> Subject:
        """Return the same with the network on a device."""
        return replace(self, network=self.network.to(device))


def subject_of(
    source: TeacherSource,
    *,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    normalize: str | None = None,
    trust_code: bool = False,
) -> Subject:
    """Return the network that a user names, with the facts about its images.

    Args:
        source: A trained network: a run's folder, `resnet20@FILE`, a module, or a teacher with a network inside.
        classes: Its number of classes; a saved run, pretrained weights and a module tell it themselves.
        channels: Channels of its images; 3 by default where it does not tell.
        image_size: Side of its images in pixels; a saved run tells it itself.
        normalize: The statistics of a module's images in [0, 1], such as `cifar10`; networks by name tell their own.
        trust_code: Whether a saved network may run the code that it names.

    Raises:
        UserError: If it is untrained, gives only answers, or its images' size or its classes are not known.
    """
    if isinstance(source, Teacher):
        inner = source.as_network()
        if inner is None:
            raise UserError(
                f"A {type(source).__name__} only gives answers, and images are made by following gradients through a "
                "network: pass the network itself."
            )
        source = inner
    if isinstance(source, str):
        if normalize is not None:
            raise UserError(f"The input statistics of a network by name belong to it: write {source},normalize=...")
        return _by_name(source, classes, channels, image_size, trust_code=trust_code)
    return _given(source, channels or _COLOUR, _side(image_size, "A module"), normalize)


def _by_name(
    text: str, classes: int | None, channels: int | None, image_size: int | None, *, trust_code: bool
) -> Subject:
    spec, known = NetworkSpec.parse(text), metadata_of(text)
    own = classes is None and known is None
    counted = with_own_classes(spec).options.get("num_classes") if own else None
    count = classes or (known.num_classes if known is not None else counted)
    if count is None:
        raise UserError(f"{text} does not tell how many classes it has: say so with --classes (classes= in Python).")
    channels = channels or (known.in_channels if known is not None else _COLOUR)
    if channels == 0:
        raise UserError(f"{text} takes texts, and only images can be made.")
    _check_channels(channels)
    size = known.input_size if known is not None and image_size is None else None
    height, width = (size[0], size[1]) if size else (_side(image_size, text),) * 2
    names = known.class_names if known is not None and known.class_names else tuple(map(str, range(count)))
    data = _blank(names, channels, (height, width))
    plan = blueprint(text, data, trained=True, own_classes=own, trust_code=trust_code)
    if not plan.trained:
        raise UserError(
            f"Images are made from what a network has learned, and {text} is untrained: name a run or add @FILE."
        )
    network = plan.build(0, "teacher")
    _check(network, data)
    given = spec.normalize is not None or known is not None
    return _subject(network, plan.name, data, _statistics(network, given=given, name=text))


def _given(source: Any, channels: int, side: int, normalize: str | None) -> Subject:
    _check_channels(channels)
    network = copy_of(source) if isinstance(source, nn.Module) else source()
    own = Normalization.parse(normalize) if normalize is not None else None
    if own is not None:
        network = Normalized(bare(network), own.mean, own.std)
    with evaluating(network), torch.no_grad():
        count = answer(network, torch.zeros(2, channels, side, side)).shape[1]
    data = _blank(tuple(map(str, range(count))), channels, (side, side))
    _check(network, data)
    name = type(bare(network)).__name__
    return _subject(network, name, data, _statistics(network, given=own is not None, name=name))


def _statistics(network: nn.Module, *, given: bool, name: str) -> Normalization | None:
    """Return the statistics of a network's images; None, with a notice, if they are not known."""
    found = network.normalization if isinstance(network, Normalized) else Normalization.named("none")
    if found != Normalization.named("none"):
        return found
    if not given:
        notice(
            f"{name} does not tell the mean and the deviation of the images that it was trained on, so it is taken to "
            "expect images in [0, 1] as they are. If it expects normalised ones, add normalize=... (such as "
            "normalize=imagenet)."
        )
    return None


def _subject(network: nn.Module, name: str, data: Data, statistics: Normalization | None) -> Subject:
    network = freeze(network).eval()
    height, width = data.image_size
    weights = of_tensors(bare(network).state_dict())
    return Subject(network, name, weights, data.class_names, data.in_channels, (height, width), statistics)


def _check(network: nn.Module, data: Data) -> None:
    check_scores(check_classes(network, data, who="teacher"), data.task, who="teacher")


def _blank(names: tuple[str, ...], channels: int, size: tuple[int, int]) -> Data:
    """Return two black images, which stand for the data that are not there."""
    images = ResidentImages(torch.zeros(2, channels, *size, dtype=torch.uint8), None)
    return Data(
        name="images of the network's size",
        splits={"train": images},
        num_classes=len(names),
        class_names=names,
        in_channels=channels,
        image_size=size,
        fingerprint="",
        unlabelled=frozenset({"train"}),
    )


def _check_channels(channels: int) -> None:
    if channels not in (1, _COLOUR):
        raise UserError(f"Images of {channels} channels cannot be stored: only grey (1) and colour (3) can.")


def _side(image_size: int | None, who: str) -> int:
    if image_size is None:
        raise UserError(
            f"{who} does not tell the size of its images: say so with --image-size (image_size= in Python)."
        )
    if image_size < 1:
        raise UserError(f"The image size is {image_size} pixels: give 1 or more.")
    return image_size


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return one number for each channel, `[1, channel, 1, 1]`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
