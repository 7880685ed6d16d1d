"""What the switches on `auto` become on this machine: precision, memory format, compilation.

Decided before training, from the sizes alone, so that a resumed or repeated run decides the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError, unknown
from tutelage.features import FeatureExtractor
from tutelage.method import Method
from tutelage.models.size import forward_flops
from tutelage.soundness import unsound_convolutions
from tutelage.training import Switch, Training

COMPILE_SECONDS = 20.0
COMPILE_GAIN = 0.25
SMALL_FLOPS = 1e7
FLOPS_PER_SECOND = {"cpu": 2.5e11, "cuda": 2e13, "mps": 2e12}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a training run uses, and why.

    Attributes:
        device: Type of the device.
        precision: Fabric's name of the precision.
        channels_last: Whether images and convolutions are stored channels-last.
        compile: Whether networks are compiled.
        threads: Processor threads to compute with; None leaves torch's choice.
        reasons: One line for each decision.
    """

    device: str
    precision: str
    channels_last: bool
    compile: bool
    threads: int | None
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        text = "; ".join(self.reasons)
        return f"{text[:1].upper()}{text[1:]}."


def decide(training: Training, method: Method, example: Any, *, samples: int) -> Decision:
    """Decide every switch that is on `auto`.

    Args:
        training: The settings.
        method: The method, for the cost of its networks.
        example: Inputs of one or more samples.
        samples: Training samples that the run still has to see, over all epochs.
    """
    device = device_type(training.device)
    networks = [module for module in method.modules() if isinstance(module, FeatureExtractor)]
    flops = sum(_flops(network, example) for network in networks)
    precision, why_precision = _precision(training.precision, device, flops)
    if precision == "bf16-mixed" and device == "cpu" and (wrong := unsound_convolutions(method)):
        precision, why_precision = _without_bf16(training.precision, wrong)
    compiled, why_compile = _compile(training.compile, device, flops * samples, len(networks))
    is_image = isinstance(example, Tensor) and example.ndim == 4
    channels_last = is_image and training.channels_last != "off"
    memory = "channels-last" if channels_last else "contiguous memory"
    return Decision(
        device=device,
        precision=precision,
        channels_last=channels_last,
        compile=compiled,
        # Threads wait for each other longer than networks this small compute: over twenty times, on a busy machine.
        threads=1 if device == "cpu" and flops < SMALL_FLOPS else None,
        reasons=(why_precision, memory, why_compile),
    )


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
        raise UserError(f"There is no {device} device here, only {found}: leave --device away, or fix the driver.")
    return device


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many processor threads for a while; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_native_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def _precision(wish: str, device: str, flops: float) -> tuple[str, str]:
    if wish != "auto":
        return wish, f"{wish} (asked for)"
    if flops < SMALL_FLOPS and device == "cpu":
        return "32-true", "float32, one thread (networks this small gain nothing from bf16 or more)"
    if has_native_bf16(device):
        return "bf16-mixed", "bf16 mixed precision (native on this hardware)"
    return "32-true", "float32 (no native bf16 here)"


def _without_bf16(wish: str, wrong: Sequence[str]) -> tuple[str, str]:
    """Return what to do where bf16 convolutions are wrong: not take them, unless they are asked for."""
    layers = wrong[0] if len(wrong) == 1 else f"{wrong[0]} and {len(wrong) - 1} more"
    if wish == "auto":
        return "32-true", f"float32 (in bf16 this machine computes the convolution {layers} wrongly)"
    return wish, f"{wish} (asked for, though this machine computes the convolution {layers} wrongly in it)"


def _compile(wish: Switch, device: str, total_flops: float, networks: int) -> tuple[bool, str]:
    if wish != "auto":
        return wish == "on", f"compilation {wish} (asked for)"
    # A training step costs about three forward passes.
    seconds = 3 * total_flops / FLOPS_PER_SECOND.get(device, 1e12)
    pays = seconds * COMPILE_GAIN > 2 * COMPILE_SECONDS * max(1, networks)
    if not pays:
        return False, "not compiled (the run is too short for it to pay back)"
    share = 2 * COMPILE_SECONDS * networks / (seconds * COMPILE_GAIN)
    return True, f"compiled (pays back after {share:.0%} of the run)"


def _flops(network: FeatureExtractor, example: Any) -> float:
    """Return floating-point operations of one sample's forward pass."""
    answer, flops = forward_flops(network, example)
    return float(flops) / max(1, len(answer.logits))
