"""Attention: how strongly each token attends to each other one, read from any network that computes it in the open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from tutelage.errors import UserError
from tutelage.losses import wide
from tutelage.models.answers import call, uncompiled
from tutelage.models.modes import encoders_of, evaluating, keeping_padding
from tutelage.models.normalization import bare

ATTENTION = ":attention"
"""Ends the name of a place whose attention is read: logarithms of its probabilities, `[batch, head, query, key]`."""

Hear = Callable[[Tensor], None]

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class Listening(TorchFunctionMode):
    """While a network runs within it, modules that listen hear the first attention that they compute.

    What the network computes stays the same to the last bit. The logarithms of the probabilities are computed beside
    it, before any dropout, and only for the modules that listen: all others keep torch's fused attention alone.

    An attention is a softmax over the last dimension of a tensor with three dimensions or more, or a call of torch's
    `scaled_dot_product_attention`. What other libraries fuse, such as FlashAttention, cannot be heard.
    """

    def __init__(self) -> None:
        super().__init__()
        # The modules that run now, the innermost last; None for one that has heard its attention.
        self._open: list[Hear | None] = []

    def attach(self, module: nn.Module, hear: Hear) -> Handles:
        """Let a module listen.

        Args:
            module: The module.
            hear: Called with `[batch, head, query, key]`, in float32, once in each call of the module.

        Returns:
            What removes the hooks.
        """

        def enter(*_: Any) -> None:
            self._open.append(hear)

        def leave(*_: Any) -> None:
            # Empty if the module was entered before a pass that began anew.
            if self._open:
                self._open.pop()

        return Handles((module.register_forward_pre_hook(enter), module.register_forward_hook(leave)))

    def __enter__(self) -> Any:
        # A forward pass that broke off left its modules open.
        self._open.clear()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function as it is; of an attention, let the innermost module hear it."""
        kwargs = kwargs or {}
        if self._open and (hear := self._open[-1]) is not None:
            scores = _scores(func, args, kwargs)
            if scores is not None:
                self._open[-1] = None
                hear(_log_probabilities(scores))
        return func(*args, **kwargs)


class Handles:
    """Several hooks that are removed together.

    Args:
        handles: Their handles.
    """

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        self._handles = tuple(handles)

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def heard(model: nn.Module, modules: Sequence[str], inputs: Any) -> dict[str, Tensor]:
    """Return the attention that modules compute in one forward pass, in the order in which they compute it.

    Args:
        model: The network. It runs in eval mode and without gradients, and is left as it was.
        modules: Names in the bare network. Of modules within each other, the innermost hears an attention.
        inputs: Inputs for one forward pass.

    Returns:
        By the name of the module, the logarithms of the probabilities `[batch, head, query, key]`. Modules that compute
        none are left out.
    """
    model = uncompiled(model)
    network, listening = bare(model), Listening()
    found: dict[str, Tensor] = {}
    handles = [listening.attach(network.get_submodule(name), partial(found.__setitem__, name)) for name in modules]
    try:
        with evaluating(model), torch.no_grad(), keeping_padding(encoders_of(model)), listening:
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def attention_blocks(model: nn.Module, inputs: Any) -> Mapping[str, Tensor]:
    """Return the blocks of a network that attend, from the first to the last, each with its attention on the inputs.

    A block is the innermost numbered module around an attention, such as `bert.encoder.layer.3`.

    Args:
        model: The network.
        inputs: Inputs for one forward pass.

    Raises:
        UserError: If there is none.
    """
    network = bare(uncompiled(model))
    numbered = [name for name, _ in network.named_modules() if name.rpartition(".")[2].isdecimal()]
    found = heard(model, numbered, inputs)
    if not found:
        raise no_attention(network)
    return found


def no_attention(network: nn.Module, *, within: str = "") -> UserError:
    """Return the error for a network whose attention cannot be read.

    Args:
        network: The bare network.
        within: The module in which it was looked for; by default everywhere.
    """
    where = f"{within} of {type(network).__name__}" if within else type(network).__name__
    return UserError(
        f"{where} computes no attention that can be read. Name a transformer such as BERT, whose attention is a "
        'softmax or torch\'s scaled_dot_product_attention (in transformers, attn_implementation="sdpa" or "eager"), '
        "or choose a method that reads no attention, such as kd."
    )


def _scores(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the scores of which a function takes the softmax; None if it is no attention."""
    if func is F.scaled_dot_product_attention:
        return _fused_scores(*args, **kwargs)
    if func in _SOFTMAX:
        scores: Tensor = args[0] if args else kwargs["input"]
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        return scores if scores.ndim > 2 and dim in (-1, scores.ndim - 1) else None
    return None


def _fused_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return the scores within torch's fused attention, as its documentation defines them, `[..., query, key]`."""
    if enable_gqa:
        # Several heads of queries share one of keys.
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    if attn_mask is None:
        return scores
    return scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask


def _log_probabilities(scores: Tensor) -> Tensor:
    scores = wide(scores)
    if scores.ndim == 3:
        # One head.
        scores = scores[:, None]
    # Finite, because of a row whose places are all hidden the softmax would be NaN.
    return scores.clamp(min=torch.finfo(scores.dtype).min).log_softmax(-1)
