"""What networks answer: the logits in whatever they return."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tutelage.errors import UserError


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the network itself, where it comes compiled by its user."""
    inner = getattr(model, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else model


def logits_of(raw: Any) -> Tensor:
    """Return the logits of a network's raw answer: the tensor itself, or its `.logits`.

    Raises:
        UserError: If it is neither.
    """
    logits = raw if isinstance(raw, Tensor) else getattr(raw, "logits", None)
    if not isinstance(logits, Tensor):
        raise UserError(
            f"A network answers with a {type(raw).__name__}: it must return the logits, or an object with .logits. "
            "Wrap it in a module that does."
        )
    return logits
