"""Networks of the library `transformers` that classify texts or continue them, by name or folder."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.errors import UserError
from tutelage.models.user_code import FAILURES, told
from tutelage.system.values import Count, check

PREFIX = "transformers:"
EXTRA = "text"
_LAYERS, _SIZES, _CLASSES = "layers", ("hidden", "heads"), "num_classes"
_CLASSIFIER = "ForSequenceClassification"
HEAD = "head"
"""The option that names a network's head. Without it, the network classifies texts."""
CAUSAL = "language"
"""The head that answers at each token with a score for each token that may come next."""
CAUSAL_NAMES = ("ForCausalLM", "LMHeadModel")
"""How the names of networks with such a head end."""


def is_shrunk(options: Mapping[str, Any]) -> bool:
    """Return whether options ask for other layers than those of the pretrained weights."""
    return any(name in options for name in (_LAYERS, *_SIZES))


def is_resized(options: Mapping[str, Any]) -> bool:
    """Return whether options ask for layers of other sizes, which no pretrained weights fit."""
    return any(name in options for name in _SIZES)


def check_installed(what: str) -> None:
    """Refuse to go on without the library `transformers`.

    Args:
        what: What needs it, for the message.

    Raises:
        UserError: If it is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{what} needs the library transformers: pip install 'tutelage[{EXTRA}]'.")


def open_config(name: str) -> Any:
    """Return the configuration of a network of `transformers`.

    Args:
        name: A name on the Hugging Face hub, or a folder.

    Raises:
        UserError: If there is no such network, or the library is not installed.
    """
    check_installed(f"The network {PREFIX}{name}")
    from transformers import AutoConfig

    folder = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if not folder.is_dir() and looks_local:
        raise UserError(f"There is no folder {name!r} for {PREFIX}{name}: check the path.")
    try:
        with quiet():
            return AutoConfig.from_pretrained(str(folder) if folder.is_dir() else name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{PREFIX}{name} cannot be opened ({_line(error)}): give the name of a network on the Hugging Face hub, or "
            "a folder with its config.json."
        ) from error


def is_causal(name: str) -> bool:
    """Return whether pretrained weights by name are of a network that continues texts.

    Args:
        name: A name on the Hugging Face hub, or a folder.

    Raises:
        UserError: If there is no such network.
    """
    return any(kind.endswith(CAUSAL_NAMES) for kind in open_config(name).architectures or ())


def language_classes(name: str) -> tuple[str, ...] | None:
    """Return the classes of pretrained weights by name; None if they hold no classifier of texts.

    Args:
        name: A name on the Hugging Face hub, or a folder.

    Raises:
        UserError: If there is no such network.
    """
    config = open_config(name)
    if not any(kind.endswith(_CLASSIFIER) for kind in config.architectures or ()):
        return None
    return tuple(str(config.id2label[number]) for number in range(config.num_labels))


def build_language(name: str, *, num_classes: int, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Return a network that classifies texts, or one that continues them.

    Args:
        name: A name on the Hugging Face hub, or a folder with `config.json`.
        num_classes: Classes K, or values; pretrained weights for another number get an untrained classifier.
        pretrained: Whether the pretrained weights are taken.
        options: `layers`: how many of the layers to keep, evenly spread with the last one among them, or their
            numbers from 1, joined by `+`. `hidden` and `heads`: the width, and the heads of each layer, of an untrained
            network; the layers between are as much wider as before. `num_classes` takes the place of K. With
            `head=language` it answers at each token, and K is the size of its own vocabulary.

    Raises:
        UserError: If there is no such network, option or weights, or it is to continue texts and sees what comes next.
    """
    check_installed(f"The network {PREFIX}{name}")
    of = f"{PREFIX}{name}"
    _check_options(options, of)
    if pretrained and (size := next((option for option in _SIZES if option in options), None)):
        raise UserError(f"{of}: with {size}= the pretrained weights do not fit. Leave out pretrained=true.")
    config = open_config(name)
    if HEAD in options:
        # Encoders such as BERT would otherwise see the very tokens that they are to predict.
        config.is_decoder, config.use_cache = True, False
        if config.vocab_size < num_classes:
            raise UserError(
                f"{of} has numbers for {config.vocab_size} tokens, and its tokenizer's vocabulary has {num_classes}: "
                "take the tokenizer that belongs to it."
            )
    else:
        config.num_labels = options.get(_CLASSES, num_classes)
    kept = _kept(options[_LAYERS], config.num_hidden_layers, of=of) if _LAYERS in options else None
    try:
        kind = _class_of(options)
        built = _pretrained(name, config, kept, kind) if pretrained else _fresh(config, kept, options, kind, of=of)
        return built if HEAD not in options else _checked(built, of=of)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{of} has no weights that can be read ({_line(error)}): add `,pretrained=false` for an untrained network, "
            "or name a folder with model.safetensors."
        ) from error
    except FAILURES as error:
        raise UserError(f"{of} cannot be built with {dict(options) or 'its own options'}: {told(error)}.") from error


def _check_options(options: Mapping[str, Any], of: str) -> None:
    for option, value in options.items():
        if option not in (_LAYERS, *_SIZES, _CLASSES, HEAD):
            raise UserError(f"{of} has no option {option!r}: it takes {_LAYERS}, {', '.join(_SIZES)} and {_CLASSES}.")
        if option == HEAD and value != CAUSAL:
            raise UserError(f"{of} has no {HEAD}={value}: it is {HEAD}={CAUSAL}, or left out for a classifier.")
        if option not in (_LAYERS, HEAD):
            check(option, value, Count, of=of)


def _class_of(options: Mapping[str, Any]) -> Any:
    """Return the class of transformers that makes networks with the head that was asked for."""
    import transformers

    return transformers.AutoModelForCausalLM if HEAD in options else transformers.AutoModelForSequenceClassification


@torch.no_grad()
def _checked(network: nn.Module, *, of: str) -> nn.Module:
    """Refuse a network that sees what comes next: it would copy it, and its perplexity would mean nothing."""
    tokens = torch.tensor([[0, 1, 0, 1], [0, 1, 0, 0]])
    was_training = network.training
    answers = network.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    network.train(was_training)
    # With some room: other numbers in a row may be added up in another order.
    if not torch.allclose(answers[0, :3], answers[1, :3], rtol=1e-3, atol=1e-4):
        raise UserError(
            f"{of} sees the tokens that come next, so it cannot learn to predict them: choose a network that is made "
            "to continue texts, such as one of GPT-2's or Llama's kind."
        )
    return network


def _pretrained(name: str, config: Any, kept: list[int] | None, kind: Any) -> nn.Module:
    with quiet():
        network: nn.Module = kind.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    if kept is not None:
        _keep(network, kept, config.num_hidden_layers)
    return network.float()


def _fresh(config: Any, kept: list[int] | None, options: Mapping[str, Any], kind: Any, *, of: str) -> nn.Module:
    config = copy.deepcopy(config)
    if kept is not None:
        _note_layers(config, kept)
    width, heads = options.get("hidden", config.hidden_size), options.get("heads", config.num_attention_heads)
    if width % heads:
        raise UserError(f"{of}: {heads} heads cannot share a width of {width}: choose heads=.")
    for name in ("intermediate_size", "n_inner"):
        if (between := getattr(config, name, None)) is not None:
            setattr(config, name, between * width // config.hidden_size)
    if (shared := getattr(config, "num_key_value_heads", None)) is not None:
        # Keys and values that several heads share: as many heads share them as before, where that comes out even.
        config.num_key_value_heads = math.gcd(heads, max(1, heads * shared // config.num_attention_heads))
    if getattr(config, "head_dim", None) is not None:
        config.head_dim = width // heads
    config.hidden_size, config.num_attention_heads = width, heads
    network: nn.Module = kind.from_config(config)
    return network.float()


def _keep(network: nn.Module, kept: list[int], layers: int) -> None:
    """Remove the layers of a network that are not kept."""
    stacks = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.ModuleList)]
    found = [(name, part) for name, part in stacks if len(part) == layers]
    if len(found) != 1:
        raise UserError(f"{type(network).__name__} has no single stack of {layers} layers to choose from.")
    name, stack = found[0]
    parent, _, attribute = name.rpartition(".")
    layers_kept = nn.ModuleList(stack[number] for number in kept)
    setattr(network.get_submodule(parent), attribute, layers_kept)
    for position, layer in enumerate(layers_kept):
        # By this number a layer finds its part of what is remembered while a text is written.
        for part in layer.modules():
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = position  # type: ignore[assignment]
    _note_layers(network.config, kept)


def _note_layers(config: Any, kept: list[int]) -> None:
    """Write into a configuration which layers are kept."""
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        # Networks whose layers attend in different ways list the way of each.
        config.layer_types = [kinds[number] for number in kept]
    config.num_hidden_layers = len(kept)


def kept_layers(wanted: int | str, layers: int) -> list[int]:
    """Return the positions, from 0, of the layers that `layers=` keeps; empty if it does not fit.

    A number k keeps every (L/k)-th of L layers, so that the last one is among them: 2, 4, ..., 12 for 6 of 12.

    Args:
        wanted: How many layers, or their numbers from 1 joined by `+`.
        layers: How many there are.
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return [number * layers // wanted - 1 for number in range(1, wanted + 1)] if 1 <= wanted <= layers else []
    named = [part.strip() for part in str(wanted).split("+")]
    numbers = [int(part) - 1 for part in named if part.isdecimal()]
    # In their own order: a network whose layers are exchanged is another one.
    is_right = len(numbers) == len(named) and numbers == sorted(set(numbers)) and all(0 <= n < layers for n in numbers)
    return numbers if is_right else []


def _kept(wanted: Any, layers: int, *, of: str) -> list[int]:
    found = kept_layers(wanted, layers)
    if not found:
        raise UserError(
            f"{of} has {layers} layers, so layers={wanted} is not possible: write how many to keep, 1 to {layers}, or "
            f"their numbers in order, such as layers=1+{layers}."
        )
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off the progress bars and notes of `transformers` within the block, and restore them afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # It tells of each classifier that is new, which is what was asked for.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
