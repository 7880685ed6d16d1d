"""Files that let the library `transformers` open a saved network without this library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.models.language import CAUSAL_NAMES, quiet
from tutelage.models.tokenizers import tokenizer_of
from tutelage.system.files import write_json

CONFIG = "config.json"


def is_language(network: nn.Module) -> bool:
    """Return whether a bare network is one of the library `transformers`."""
    return any(kind.__module__.startswith("transformers.") for kind in type(network).__mro__)


def save_language_files(folder: Path, network: nn.Module, *, weights: str, class_names: Sequence[str] | None) -> None:
    """Write the configuration and the tokenizer beside the weights of a network of `transformers`.

    Args:
        folder: The folder of the weights.
        network: The bare network.
        weights: The name of the file of weights.
        class_names: The classes in the order of the logits.
    """
    config: Any = network.config
    content = json.loads(config.to_json_string(use_diff=False))
    # Where it came from is a path of this machine.
    content.pop("_name_or_path", None)
    content |= {"architectures": [type(network).__name__], "transformers_weights": weights}
    if type(network).__name__.endswith(CAUSAL_NAMES):
        # Off in training, which reads each text once; who writes with the network wants it.
        content["use_cache"] = True
    if class_names is not None and len(class_names) == config.num_labels:
        content["id2label"] = {str(number): name for number, name in enumerate(class_names)}
        content["label2id"] = {name: number for number, name in enumerate(class_names)}
    write_json(folder / CONFIG, content)
    tokenizer = tokenizer_of(network)
    if tokenizer is not None:
        with quiet():
            tokenizer.save_pretrained(str(folder))
