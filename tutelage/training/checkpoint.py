"""Checkpoints: written atomically, without the teacher, and read without executing code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.teachers import Teacher
from tutelage.errors import UserError
from tutelage.system.files import atomic, damaged_entry


def save(target: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with atomic(target) as file:
        torch.save(dict(content), file)


def load(source: Path) -> dict[str, Any]:
    """Read what `save` wrote; code in the file is never executed.

    Raises:
        UserError: If the file is damaged or holds anything but tensors and plain values.
    """
    try:
        if (entry := damaged_entry(source)) is not None:
            raise ValueError(f"{entry} is not what was written")
        content: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    # torch.load raises errors of many types for a damaged file, so every type is caught.
    except Exception as error:
        raise UserError(
            f"{source} is damaged, or was not written by Tutelage ({type(error).__name__}). Delete it: the run then "
            "starts this stage again."
        ) from error
    return content


def student_state(method: nn.Module) -> dict[str, Tensor]:
    """Return the state of a method without its teachers, which are frozen and come from elsewhere."""
    teachers = tuple(f"{name}." for name, module in method.named_modules() if isinstance(module, Teacher))
    return {key: value for key, value in method.state_dict().items() if not (teachers and key.startswith(teachers))}


def student_buffers(method: nn.Module) -> list[Tensor]:
    """Return the buffers of a method without its teachers, whose buffers never change."""
    teachers = [module for module in method.modules() if isinstance(module, Teacher)]
    # By identity: tensors compare by value, and `in` would compare each pair of them.
    of_teachers = {id(buffer) for teacher in teachers for buffer in teacher.buffers()}
    return [buffer for buffer in method.buffers() if id(buffer) not in of_teachers]


def load_student_state(method: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Restore what `student_state` returned. The keys must match exactly."""
    own = student_state(method)
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())[:5]
        raise UserError(f"The checkpoint belongs to another method or network: it differs in {', '.join(odd)}.")
    with torch.no_grad():
        for key, value in own.items():
            # In place, because optimizers and compiled code hold on to these tensors.
            value.copy_(state[key])


def snapshot(method: nn.Module) -> dict[str, Tensor]:
    """Return a copy of `student_state` that later training does not touch."""
    return {key: value.detach().clone() for key, value in student_state(method).items()}
