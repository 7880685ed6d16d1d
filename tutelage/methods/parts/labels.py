"""Labels of all training samples, for methods that put samples of one class together, or of different classes."""

from __future__ import annotations

from torch import Tensor

from tutelage.errors import UserError
from tutelage.losses import UNLABELLED


def all_labelled(targets: Tensor, method: str) -> Tensor:
    """Return the labels unchanged, if every sample has one.

    Args:
        targets: Class indices `[sample]`, -1 where there is none.
        method: The method's name in the message.

    Raises:
        UserError: If a sample has none. The -1 would otherwise count as one more class.
    """
    missing = int((targets == UNLABELLED).sum())
    if missing:
        raise UserError(
            f"{method} puts samples together by their class, and {missing} of the {len(targets)} training samples have "
            "no label (-1). Train on the labelled samples alone, or choose a method that uses the others too, such as "
            "kd."
        )
    return targets
