"""The memory format of images and convolutions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


def store_channels_last(module: nn.Module) -> nn.Module:
    """Store a module's images and convolutions channels-last, and return it.

    Tensors that are channels-last already are not copied, so that code compiled for them stays valid. `Module.to` would
    copy tensors with one channel each time.
    """
    form = torch.channels_last

    def stored(tensor: Tensor) -> Tensor:
        if tensor.ndim != 4 or tensor.stride() == torch.empty(tensor.shape, device="meta", memory_format=form).stride():
            return tensor
        return tensor.to(memory_format=form)

    return cast("nn.Module", module._apply(stored))  # type: ignore[no-untyped-call]  # torch's
