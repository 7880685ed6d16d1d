"""Eval mode for a while, and train mode that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.models.dropout import steady


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode for a while; every submodule returns to the mode that it had.

    Dropout that goes on in eval mode rests as well: looking at a network uses no random numbers.
    """
    # What torch.jit.freeze or torch.export made has one mode, and no way to another.
    modes = {one: one.training for root in modules for one in root.modules() if hasattr(one, "training")}
    for root in modules:
        with suppress(NotImplementedError):
            root.eval()
    try:
        with steady(*modules):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def encoders_of(network: nn.Module) -> list[nn.TransformerEncoder]:
    """Return the parts of a network that `keeping_padding` is about."""
    found = (module for module in network.modules() if isinstance(module, nn.TransformerEncoder))
    return [encoder for encoder in found if getattr(encoder, "use_nested_tensor", False)]


@contextmanager
def keeping_padding(encoders: Sequence[nn.TransformerEncoder]) -> Iterator[None]:
    """Let torch's transformer encoders keep the padding that they pack away in eval mode.

    Packed, their layers give nested tensors, in which nothing can be read by its place.

    Args:
        encoders: As `encoders_of` finds them.
    """
    for encoder in encoders:
        encoder.use_nested_tensor = False
    try:
        yield
    finally:
        for encoder in encoders:
            encoder.use_nested_tensor = True


@contextmanager
def keeping_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by its batch, as in train mode, without its running statistics taking notice.

    For a second forward pass on samples that are not another batch of the data: mixed, or seen already.
    """
    norms = [layer for root in modules for layer in root.modules() if isinstance(layer, _BatchNorm)]
    tracking = [layer.track_running_stats for layer in norms]
    for layer in norms:
        # Without tracking, a layer in eval mode would normalise by the batch too.
        layer.track_running_stats = layer.track_running_stats and not layer.training
    try:
        yield
    finally:
        for layer, before in zip(norms, tracking, strict=True):
            layer.track_running_stats = before
