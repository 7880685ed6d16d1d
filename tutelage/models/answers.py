"""How a network is asked, and where in its answer the logits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tutelage.errors import UserError


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
    """Return a network's logits `[batch, ...]`.

    Args:
        network: The network.
        inputs: Its inputs. A mapping, such as tokens and their mask, is passed by keyword; anything else as it is.

    Raises:
        UserError: If there are no logits in what it returns.
    """
    return logits_of(call(network, inputs))


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
