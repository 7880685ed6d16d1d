"""Attributes of a teacher that cannot be compared with another teacher's."""

from __future__ import annotations

import torch
from torch import nn

Plain = bool | int | float | str | None


def incomparable(module: nn.Module, *, apart_from: frozenset[str] = frozenset()) -> list[str]:
    """Return the names of the attributes that are neither weights nor plain settings, such as functions and clients.

    Two modules with such attributes may differ although everything comparable is equal.

    Args:
        module: The module; attributes of its submodules do not count.
        apart_from: Names to leave out.
    """
    # What every module has. A compiled module has one more, which changes none of its answers.
    own = vars(nn.Module()).keys() | {"_compiled_call_impl"} | apart_from
    return [name for name, value in vars(module).items() if name not in own and not _is_plain(value)]


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    # Types and devices are settings as well, though not of JSON.
    return isinstance(value, Plain | torch.dtype | torch.device)
