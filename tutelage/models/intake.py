"""Checks and messages for a network that cannot take the data, or cannot be trained as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.sources import Data
from tutelage.errors import UserError
from tutelage.models.answers import answer, call
from tutelage.models.copies import copy_of
from tutelage.models.modes import evaluating
from tutelage.models.normalization import bare
from tutelage.system.chance import seeded

SINGLE = "more than 1 value per channel"
"""What torch's batch norm says of a single sample in training."""

# Image sizes for which networks of a fixed size are usually built, the likeliest first.
_USUAL_SIDES = (224, 256, 384, 32, 64, 96, 128, 28, 299, 336, 448, 512)


def refused_inputs(network: nn.Module, example: Any, error: Exception, *, who: str, data: Data) -> UserError:
    """Return the error for a network that failed on inputs. It names the size or type that fits.

    Args:
        network: The network.
        example: The inputs.
        error: The error that it raised.
        who: The network's name in the message.
        data: The data of the inputs.
    """
    reason = _line(error)
    if not isinstance(example, Tensor):
        return UserError(f"The {who} cannot take inputs ({type(example).__name__}) of {data.name}: {reason}.")
    text = f"The {who} cannot take inputs of shape {list(example.shape)} of {data.name}: {reason}."
    if (kind := _type_taken(network, example)) is not None:
        return UserError(
            f"{text} Its numbers are {kind}, and the inputs are {example.dtype}: pass network.to({example.dtype}), or "
            "let its forward convert what it is given."
        )
    side = _side_taken(network, example) if example.ndim == 4 else None
    if side is None:
        return UserError(text)
    now = "x".join(map(str, example.shape[2:]))
    return UserError(
        f"{text} It takes images of {side}x{side} pixels, and these are {now}. Resize the images (--image-size {side}, "
        f"image_size={side} in load_data, or the transform of your dataset), or build the network for their size "
        f"(timm's transformers: img_size={example.shape[-1]})."
    )


def check_learns(network: nn.Module, *, who: str) -> None:
    """Refuse to train a network that is frozen, or whose mode, training or eval, can no longer be changed.

    Args:
        network: The network.
        who: What the message calls it.

    Raises:
        UserError: It was traced, frozen or exported, and holds layers that training changes; or no parameter learns.
    """
    if _has_one_mode(bare(network)):
        raise UserError(
            f"The {who} was traced, frozen or exported, so its dropout and batch norm cannot be switched to training. "
            "Pass the network that it was made from."
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"The {who} has no parameter that learns: all are frozen (requires_grad=False), or it has none. Thaw what "
            "shall be trained, such as by network.requires_grad_(True)."
        )


def check_trains(network: nn.Module, data: Data, *, who: str) -> None:
    """Refuse to train a network that takes the data in eval mode and fails in training mode, or passes no gradient.

    A copy is asked about two samples, so that the network stays as it is. One that cannot be copied is not tested.

    Args:
        network: The network.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: Its forward pass fails in training mode, gives no logits, or cuts the gradient.
    """
    try:
        twin = copy_of(network).train()
    except UserError:
        return
    try:
        with seeded(0), torch.enable_grad():
            logits = answer(twin, data.example(2))
    except UserError as error:
        raise UserError(f"In training mode the {who} fails, unlike in eval mode: {error}") from error
    except Exception as error:  # A user's network may refuse its inputs with an error of any class.
        if SINGLE in str(error):
            # A loader's batches of one sample are refused when the first of them is trained on.
            return
        raise UserError(
            f"In training mode the {who} fails on inputs of {data.name}, unlike in eval mode: {_line(error)}. Parts "
            "that only training uses, such as auxiliary classifiers, may need larger images (--image-size, "
            "image_size=), or be left out (torchvision: aux_logits=False)."
        ) from error
    if not logits.requires_grad:
        raise UserError(
            f"The {who} passes no gradient to its parameters: its forward pass cuts it by torch.no_grad, detach(), "
            ".data or numpy. Take that out, or nothing would be learned."
        )


def check_untouched(before: Any, after: Any, *, who: str) -> None:
    """Refuse a network that changed its inputs in place: other networks read the same tensor.

    Args:
        before: A copy of the inputs from before the forward pass, as `kept_inputs` makes it.
        after: The inputs after it.
        who: What the message calls the network.

    Raises:
        UserError: They differ.
    """
    if isinstance(after, Mapping):
        for name, value in after.items():
            check_untouched(before[name], value, who=who)
    elif isinstance(after, Tensor) and not bool(((before == after) | before.isnan()).all()):
        raise UserError(
            f"The {who} changes its inputs in place, so whatever reads them next gets what is left of them. Write "
            "x = x - mean instead of x -= mean or x.sub_(mean), leave out inplace=True in its first layer, or "
            "begin its forward with x = x.clone()."
        )


def kept_inputs(inputs: Any) -> Any:
    """Return a copy of inputs, for `check_untouched`."""
    if isinstance(inputs, Mapping):
        return {name: kept_inputs(value) for name, value in inputs.items()}
    return inputs.clone() if isinstance(inputs, Tensor) else inputs


def check_graph(network: nn.Module, data: Data, *, who: str) -> None:
    """Refuse a recorded graph that accepts only one batch size, or whose answer for a sample depends on the others.

    Networks of Python code are not tested.

    Args:
        network: The network.
        data: The data.
        who: What the message calls it.

    Raises:
        UserError: It is such a graph.
    """
    if not (isinstance(bare(network), torch.jit.ScriptModule) or _is_exported(bare(network))):
        return
    # Three samples, then two of them: a second batch size shows a graph that accepts only one.
    example = data.example(3)
    if not isinstance(example, Tensor) or len(example) < 3:
        return
    with evaluating(network), torch.no_grad():
        try:
            together, apart = answer(network, example), answer(network, example[:2])
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"The {who} accepts only one batch size ({_line(error)}): export or trace it with a variable batch "
                "size, or pass the network that it was made from."
            ) from error
    if not torch.allclose(together[:2], apart, rtol=1e-3, atol=1e-4):
        raise UserError(
            f"The {who} gives a sample different outputs depending on the rest of the batch: it was traced or exported "
            "in training mode. Call network.eval() before that, or pass the network that it was made from."
        )


def _has_one_mode(network: nn.Module) -> bool:
    """Return whether a recorded graph has layers that act differently in training, but cannot switch its mode."""
    if isinstance(network, torch.jit.ScriptModule):
        graph = str(network.inlined_graph)
        differs = any(f"aten::{layer}" in graph for layer in ("batch_norm", "dropout", "instance_norm"))
        # torch.jit.freeze removes the attribute. Tracing writes the mode into the graph, where scripting reads the
        # attribute.
        return not hasattr(network, "training") or (differs and 'name="training"' not in graph)
    return _is_exported(network)


def _is_exported(network: nn.Module) -> bool:
    """Return whether a network is a graph of operators, as torch.export makes it, instead of modules."""
    nodes: Any = network.graph.nodes if isinstance(network, torch.fx.GraphModule) else []
    return any(isinstance(node.target, torch._ops.OpOverload) for node in nodes)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _type_taken(network: nn.Module, example: Tensor) -> torch.dtype | None:
    """Return the type of a network's numbers if it takes the inputs in that type; None if that changes nothing."""
    kind = next((each.dtype for each in network.parameters() if each.is_floating_point()), example.dtype)
    if kind == example.dtype:
        return None
    try:
        with evaluating(network), torch.no_grad():
            call(network, example.to(kind))
    except Exception:  # Something else is wrong as well, and the first error says what.
        return None
    return kind


def _side_taken(network: nn.Module, example: Tensor) -> int | None:
    """Return a usual side length of images at which the network runs; None if no usual one works."""
    for side in _USUAL_SIDES:
        try:
            with evaluating(network), torch.no_grad():
                # Through float, because bytes and half precision cannot be interpolated everywhere.
                call(network, nn.functional.interpolate(example.float(), size=(side, side)).to(example.dtype))
        except Exception:  # It may refuse a size with any error; then the next one is tried.
            continue
        return side
    return None
