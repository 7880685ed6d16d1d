"""The first and the last layer of a user's network: its input channels, and its number of classes."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.answers import answer
from tutelage.models.copies import is_lazy
from tutelage.models.modes import evaluating

# The sides of CIFAR's, Tiny ImageNet's and ImageNet's images.
_PROBE_SIDES = (32, 64, 224)


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """Return name and module of the linear layer or convolution registered last: it is probably the classifier.

    Args:
        network: Any network.
    """
    found = None
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            found = name, module
    return found


def width(layer: nn.Linear | nn.Conv2d) -> int:
    """Return the number of outputs of a layer."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def replace_classifier(network: nn.Module, num_classes: int) -> None:
    """Replace a network's classifier by an untrained one, if it has another number of classes.

    Args:
        network: The network, changed in place.
        num_classes: Classes K of the new classifier; with 0 there is none, and the network returns its embedding.

    Raises:
        UserError: The network has no layer that could be a classifier.
    """
    found = last_layer(network)
    if found is None:
        raise UserError(f"{type(network).__name__} has no linear layer or convolution to replace as its classifier.")
    name, layer = found
    if width(layer) == num_classes:
        return
    bias = layer.bias is not None
    if num_classes == 0:
        _put(network, name, nn.Identity())
        return
    if isinstance(layer, nn.Linear):
        new: nn.Module = nn.Linear(layer.in_features, num_classes, bias=bias)
    else:
        new = nn.Conv2d(layer.in_channels, num_classes, 1, bias=bias)
    _put(network, name, new)


def adapt_input(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels; each gets an equal share of the old weights.

    Args:
        network: The network, changed in place.
        in_channels: Channels of the images.

    Raises:
        UserError: The network has no convolution.
    """
    first = next(((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise UserError(f"{type(network).__name__} has no convolution whose input channels could be changed.")
    name, old = first
    if old.in_channels == in_channels:
        return
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    with torch.no_grad():
        # Divided, so that equal values in all channels give the same output as before.
        new.weight.copy_(old.weight.sum(dim=1, keepdim=True) / in_channels)
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    _put(network, name, new)


def check_classes(network: nn.Module, num_classes: int, *, in_channels: int, source: str) -> None:
    """Refuse a network that answers another number of classes than the data have.

    If the last layer has the right width, that is enough. Otherwise the network is run on images to be sure; if it
    accepts none of the usual sizes, it is not refused.

    Args:
        network: The bare network.
        num_classes: Classes of the data.
        in_channels: Channels of the data.
        source: The user's name for the network, for the message.

    Raises:
        UserError: The numbers differ.
    """
    found = last_layer(network)
    # Running a lazy network would fix its layers to the sizes of these test images.
    if found is None or width(found[1]) == num_classes or is_lazy(network):
        return
    answered = _answered_classes(network, in_channels)
    if answered not in (None, num_classes):
        raise UserError(
            f"The network {source!r} returns {answered} classes, but the data have {num_classes}. Its factory is "
            "called with `num_classes` only if it has an argument of this name and the spec does not set it."
        )


def _answered_classes(network: nn.Module, in_channels: int) -> int | None:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with evaluating(network), torch.no_grad():
        for side in _PROBE_SIDES:
            # A user's network may refuse a size with any error; then the next one is tried.
            with suppress(Exception):
                shape = answer(network, torch.zeros(1, in_channels, side, side, device=device)).shape
                # Axis 1 holds the classes, of maps of logits too.
                return shape[1] if len(shape) >= 2 else None
    return None


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)
