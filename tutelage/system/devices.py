"""Devices and processor threads: which exist here, and what they support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage.errors import UserError, unknown


def device_type(device: str) -> str:
    """Return the type of device that `auto` stands for here, or the given one.

    Raises:
        UserError: If there is no such device here.
    """
    if device != "auto":
        return _present(device)
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _present(device: str) -> str:
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device not in present:
        raise unknown("device", device, ["auto", *present])
    if not present[device]:
        found = ", ".join(name for name, is_here in present.items() if is_here)
        raise UserError(f"There is no {device} device here, only {found}: leave out --device, or fix the driver.")
    return device


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use a number of processor threads for a block; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_native_bf16(device: str) -> bool | None:
    """Return whether the device multiplies bf16 matrices in hardware; None if this version of torch cannot say."""
    if device == "cuda":
        # PyTorch counts GPUs that only emulate bf16 as supporting it, unless asked not to.
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    # Older versions of torch have no public question to the processor.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    # AMX has units for matrices of bf16; the other instructions that x86 processors have for it do not count here.
    return None if capabilities is None else bool(capabilities().get("amx_bf16", False))
