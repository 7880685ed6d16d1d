"""How a network is asked, and where in its answer the logits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import UserError

TOKENS = "input_ids"
"""Name of the numbers of the tokens among inputs that have names, `[batch, token]`."""


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the plain network of one that its user compiled; any other as it is."""
    # Where torch.compile keeps it.
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def call(network: nn.Module, inputs: Any) -> Any:
    """Return a network's answer as the network gives it.

    Args:
        network: The network.
        inputs: Its inputs. A mapping, such as tokens and their mask, is passed by keyword; anything else as it is.
    """
    # By keyword, as networks of transformers take their inputs.
    return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)


def answer(network: nn.Module, inputs: Any) -> Tensor:
    """Return a network's logits `[batch, ...]`; a map of logits has the size of the images.

    Args:
        network: The network.
        inputs: Its inputs. A mapping, such as tokens and their mask, is passed by keyword; anything else as it is.

    Raises:
        UserError: If there are no logits in what it returns.
    """
    return answered(call(network, inputs), inputs)


def answered(raw: Any, inputs: Any) -> Tensor:
    """Return the logits in what a network returned: `[batch, class, ...]`, a map in the size of the images.

    Networks that classify pixels may answer at any stride, such as one place for 8 x 8 pixels. Networks that answer at
    each token do so with the classes last.

    Args:
        raw: What the network returned.
        inputs: What it was asked.

    Raises:
        UserError: If there are no logits in it.
    """
    logits = classes_first(logits_of(raw), inputs)
    is_image = isinstance(inputs, Tensor) and inputs.ndim == 4
    return at_size(logits, (inputs.shape[2], inputs.shape[3])) if is_image else logits


def classes_first(logits: Tensor, inputs: Any) -> Tensor:
    """Return logits for each token, `[batch, token, class]`, as `[batch, class, token]`; others as they are.

    Args:
        logits: Logits of any shape.
        inputs: What the network was asked; its tokens are called `input_ids`.
    """
    tokens = inputs.get(TOKENS) if isinstance(inputs, Mapping) else None
    if not isinstance(tokens, Tensor) or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        return logits
    # A view: nothing is copied.
    return logits.movedim(2, 1)


def at_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map of logits `[batch, class, height, width]` at a size, by bilinear interpolation; others as they are.

    Args:
        logits: Logits of any shape.
        size: Height and width.
    """
    if logits.ndim != 4 or tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def logits_of(raw: Any) -> Tensor:
    """Return the logits in what a network returned: the tensor itself, its `.logits`, or an entry of that name.

    The entry `"out"` counts as well: torchvision's segmentation networks answer so.

    Raises:
        UserError: If there are none.
    """
    logits = raw if isinstance(raw, Tensor) else getattr(raw, "logits", None)
    if logits is None and isinstance(raw, Mapping):
        logits = raw.get("logits", raw.get("out"))
    if not isinstance(logits, Tensor):
        raise UserError(
            f"A network returned a {type(raw).__name__}: it must return the logits, an object with .logits, or a "
            'mapping with "logits" or "out". Wrap it in a module that does.'
        )
    return logits
