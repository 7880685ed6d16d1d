"""What is what in a user's own sample or batch: the input of the network, and the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.errors import UserError

TARGETS = ("label", "labels", "target", "targets", "fine_label", "class")
IMAGES = ("image", "images", "img", "pixel_values", "input", "inputs", "x")
_PAIR = 2


def input_and_target(sample: Any) -> tuple[Any, Any]:
    """Return the input and the target of a sample or a batch; the target is None if there is none.

    A pair is (input, target). Of a mapping or a named tuple, the target is the field with one of the usual names of
    targets; the input is the field with one of the usual names of images, or all other fields together, as text has
    them. Anything else is an input without a target.

    Args:
        sample: What the user's dataset or loader gives.

    Raises:
        UserError: If a tuple has more than two entries without names, or a mapping nothing but a target.
    """
    if hasattr(sample, "_asdict"):
        sample = sample._asdict()
    if isinstance(sample, Mapping):
        return _of_mapping(sample)
    if not isinstance(sample, tuple | list):
        return sample, None
    if len(sample) != _PAIR:
        raise UserError(
            f"A sample of the data is a {type(sample).__name__} of {len(sample)}: let each be a pair (input, target), "
            f"or name the fields in a dictionary, such as {{'image': ..., 'label': ...}}."
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
    return others[images[0]] if images else others, sample[named[0]] if named else None
