"""The map of logits before a network enlarges it to the size of the images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.features.trace import Event, Trace
from tutelage.models.answers import logits_of


def logit_map(model: nn.Module, example: Any) -> str | None:
    """Return the layer whose output becomes the network's map of logits by interpolation alone; None if there is none.

    Networks that classify pixels compute their logits at a stride such as 8, and enlarge them. All that they know is in
    the small map, and a loss on it costs a fraction.

    Args:
        model: The network.
        example: Inputs for one forward pass, or a `Trace` of it.
    """
    trace = Trace.of(model, example)
    # The bare network's own output: a wrapper may have cut it.
    whole = next((event.value for event in reversed(trace.events) if not event.name and event.side == "out"), None)
    if whole is None or (answer := logits_of(whole)).ndim != 4:
        return None
    for event in reversed(trace.events):
        if event.name and event.side == "out" and isinstance(event.module, nn.Conv2d) and _becomes(event, answer):
            return event.name
    return None


def _becomes(event: Event, answer: Tensor) -> bool:
    """Return whether an answer is a layer's output, enlarged."""
    small = event.value
    if not event.is_intact or not isinstance(small, Tensor) or small.shape[:2] != answer.shape[:2]:
        return False
    size = (answer.shape[2], answer.shape[3])
    if tuple(small.shape[2:]) == size:
        return torch.equal(small, answer)
    enlarged = (F.interpolate(small, size, mode="bilinear", align_corners=corners) for corners in (False, True))
    return any(torch.allclose(one, answer, rtol=1e-3, atol=1e-5) for one in enlarged)
