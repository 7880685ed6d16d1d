"""Eval mode within a context, and train mode that changes no running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.models.dropout import steady


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode within the context; afterwards every submodule has its former mode.

    `ActiveDropout`, which drops in eval mode too, is off as well: looking at a network uses no random numbers.
    """
    # Networks from torch.jit.freeze or torch.export have only one mode and cannot change it.
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
    """Return the transformer encoders of a network that remove padding in eval mode, for `keeping_padding`."""
    found = (module for module in network.modules() if isinstance(module, nn.TransformerEncoder))
    return [encoder for encoder in found if getattr(encoder, "use_nested_tensor", False)]


@contextmanager
def keeping_padding(encoders: Sequence[nn.TransformerEncoder]) -> Iterator[None]:
    """Let torch's transformer encoders keep the padding, which they remove in eval mode.

    Without padding their layers give nested tensors, in which no place can be read by its index.

    Args:
        encoders: The encoders, as returned by `encoders_of`.
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
    """Let batch norm normalise by its batch, as in train mode, without updating its running statistics.

    Use it for a second forward pass over samples that are not new data: mixed ones, or ones seen already.
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
