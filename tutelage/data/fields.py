"""Finding the network's input and the target in a sample or batch of a user's own data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.errors import UserError

TARGETS = ("label", "labels", "target", "targets", "fine_label", "class")
IMAGES = ("image", "images", "img", "pixel_values", "input", "inputs", "x")
_PAIR = 2


def input_and_target(sample: Any) -> tuple[Any, Any]:
    """Return the input and the target of a sample or a batch; the target is None if there is none.

    A pair is (input, target). In a mapping or a named tuple, fields are found by their usual names. The target is the
    field with a usual name of targets. The input is the field with a usual name of images, or else all other fields
    together, as for text. Anything else is an input without a target.

    Args:
        sample: A sample of the user's dataset, or a batch of the user's loader.

    Raises:
        UserError: If a tuple without names does not have two entries, a mapping has several fields with a usual name
            of targets or of images, or it has only a target.
    """
    # A named tuple, which would also pass for a plain one below.
    if hasattr(sample, "_asdict"):
        sample = sample._asdict()
    if isinstance(sample, Mapping):
        return _of_mapping(sample)
    if not isinstance(sample, tuple | list):
        return sample, None
    if len(sample) != _PAIR:
        raise UserError(
            f"A sample of the data is a {type(sample).__name__} of {len(sample)}: make each a pair (input, target), or "
            "name the fields in a dictionary, such as {'image': ..., 'label': ...}."
        )
    return sample[0], sample[1]


def _of_mapping(sample: Mapping[str, Any]) -> tuple[Any, Any]:
    named = [name for name in TARGETS if name in sample]
    if len(named) > 1:
        raise UserError(f"A sample of the data has the fields {', '.join(named)}: keep the one that is the target.")
    others = {name: value for name, value in sample.items() if name not in named}
    images = [name for name in IMAGES if name in others]
    if len(images) > 1:
        raise UserError(f"A sample of the data has the fields {', '.join(images)}: keep the one that is the input.")
    if not others:
        raise UserError(f"A sample of the data has only the field {named[0]}: it needs an input.")
    # Without a field of images all are the input, as the tokens of a text and their mask are.
    return others[images[0]] if images else others, sample[named[0]] if named else None
