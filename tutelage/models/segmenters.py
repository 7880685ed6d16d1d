"""Networks that classify pixels, by name: of torchvision, and of segmentation-models-pytorch (`smp:`)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from tutelage.errors import UserError, unknown
from tutelage.models.normalization import bare
from tutelage.models.user_code import FAILURES, told

# The families of torchvision's segmentation networks; a look into the package would import it.
_FAMILIES = ("fcn_", "deeplabv3_", "lraspp_")
# Networks whose auxiliary head is an attribute that may be None.
_TORCHVISION, _AUXILIARY = "torchvision.models.segmentation", "aux_classifier"
_ENCODER, _PACKAGE = "encoder", "segmentation_models_pytorch"


def is_segmenter(name: str) -> bool:
    """Return whether a name of torchvision is that of a network which classifies pixels."""
    return name.startswith(_FAMILIES)


def build_smp(
    name: str, *, num_classes: int, in_channels: int, pretrained: bool, options: Mapping[str, Any]
) -> nn.Module:
    """Return a network of segmentation-models-pytorch.

    Args:
        name: The architecture, such as `PSPNet` or `Unet`.
        num_classes: Classes K.
        in_channels: Channels of the images.
        pretrained: Whether the encoder gets ImageNet weights.
        options: Further arguments of the architecture; `encoder` names its encoder, such as `resnet18` or `tu-NAME` for
            one of timm.

    Raises:
        UserError: The package is missing, or there is no such architecture, encoder or option.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise UserError(
            f"smp:{name} is a network of segmentation-models-pytorch, which is not installed: pip install "
            "'tutelage[dense]'."
        ) from error
    known = [one for one, value in vars(smp).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
    if name not in known:
        raise unknown("network of segmentation-models-pytorch", name, known)
    arguments = {f"{_ENCODER}_name" if key == _ENCODER else key: value for key, value in options.items()}
    arguments |= {"encoder_weights": "imagenet" if pretrained else None}
    try:
        network: nn.Module = getattr(smp, name)(in_channels=in_channels, classes=num_classes, **arguments)
    except (OSError, *FAILURES) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "of its own"
        raise UserError(f"smp:{name} does not accept the options {given}: {told(error)}.") from error
    return network


def multiple_of(network: nn.Module) -> int:
    """Return the number by which the sides of a network's images must be divisible; 1 if it takes all sizes.

    Args:
        network: Any network. Only those of segmentation-models-pytorch say such a number.
    """
    is_smp = type(network).__module__.partition(".")[0] == _PACKAGE
    if not is_smp or not getattr(network, "requires_divisible_input_shape", True):
        return 1
    return int(getattr(getattr(network, _ENCODER, None), "output_stride", 1))


def without_auxiliary(network: nn.Module) -> nn.Module:
    """Return a network without the auxiliary head of torchvision's segmentation networks, which only training needs.

    Args:
        network: Any network, changed in place if it has such a head.
    """
    inner = bare(network)
    if type(inner).__module__.startswith(_TORCHVISION) and isinstance(getattr(inner, _AUXILIARY, None), nn.Module):
        setattr(inner, _AUXILIARY, None)
    return network


def replace_heads(network: nn.Module, num_classes: int) -> None:
    """Replace the classifiers of one of torchvision's segmentation networks by untrained ones for other classes.

    Args:
        network: The network, changed in place.
        num_classes: Classes K.
    """
    for head in ("classifier", _AUXILIARY):
        inner = getattr(network, head, None)
        if not isinstance(inner, nn.Module):
            continue
        convolutions = {name: module for name, module in inner.named_modules() if isinstance(module, nn.Conv2d)}
        last = [name for name in convolutions if name.endswith("_classifier")] or list(convolutions)[-1:]
        for name in last:
            old = convolutions[name]
            if old.out_channels != num_classes:
                parent, _, attribute = name.rpartition(".")
                new = nn.Conv2d(old.in_channels, num_classes, 1, bias=old.bias is not None)
                setattr(inner.get_submodule(parent), attribute, new)
