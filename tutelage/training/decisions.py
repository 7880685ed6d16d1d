"""How settings on `auto` are decided on this machine: precision, memory format, compilation.

The decision is made before training and depends on sizes alone, so that a resumed or repeated run decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.core.method import Method, networks
from tutelage.data.batch import Batch
from tutelage.data.images import ResidentImages, StreamedImages
from tutelage.errors import UserError
from tutelage.features.compiled import can_freeze
from tutelage.features.extractor import FeatureExtractor, is_trained
from tutelage.models.size import forward_flops
from tutelage.system.devices import device_type, has_native_bf16
from tutelage.system.memory import can_keep_memory
from tutelage.training.settings import Switch, Training
from tutelage.training.soundness import unsound_convolutions

# For a network: seconds that compiling takes, the share of its time that this saves, and the cost of a sample in
# forward passes. Measured for ResNet-8x4, ResNet-20 and WRN-16-2, in bf16 on one core, in processor time: 31 to 38 s
# and 15 to 26 % if they are trained, 7 to 9 s and 6 to 21 % if they only answer.
_TRAINED, _ANSWERING = (35.0, 0.15, 3), (10.0, 0.15, 1)
# If parameters become constants. ResNet-32x4 fell from 110 ms to 48 ms for a batch of 64; the seconds are a guess.
_FROZEN = (15.0, 0.5, 1)
# The figures above are rough, so compilation must pay back within this share of the run.
_PAID_BACK_BY = 0.5
# Cost of all networks' forward passes for one sample below which bf16 and more threads gain nothing on a processor.
SMALL_FLOPS = 1e7
# Rough figures. The networks above reach 1.7e11 to 3.8e11 on one core; cpu assumes two cores. The others are guesses.
FLOPS_PER_SECOND = {"cpu": 5e11, "cuda": 2e13, "mps": 2e12}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The device, precision and speed settings of a training run, and the reasons for them.

    Attributes:
        device: Type of the device.
        precision: Fabric's name of the precision.
        channels_last: Whether images and convolutions are stored channels-last.
        compile: Whether the networks that are trained are compiled.
        compile_teachers: Whether the networks that only answer are compiled.
        fused: Whether an optimizer updates all its parameters in one pass.
        threads: Processor threads to compute with; None leaves torch's choice.
        reasons: One line for each decision; the precision comes first.
        goes_on: Whether the precision is kept from an interrupted run although `auto` would choose another one here.
        keep_memory: Whether memory that a step frees is kept for the next one.
    """

    device: str
    precision: str
    channels_last: bool
    compile: bool
    compile_teachers: bool
    fused: bool
    threads: int | None
    reasons: tuple[str, ...]
    goes_on: bool = False
    keep_memory: bool = False

    def __str__(self) -> str:
        text = "; ".join(self.reasons)
        return f"{text[:1].upper()}{text[1:]}."


def decide(
    training: Training,
    method: Method,
    example: Any,
    *,
    samples: int,
    epochs: int = 1,
    called: str = "epochs",
    dataset: Any = None,
    begun_in: str | None = None,
    taught: Any = None,
) -> Decision:
    """Decide every switch that is on `auto`.

    Args:
        training: The settings.
        method: The method, for the cost of its networks.
        example: Inputs of one or more samples.
        samples: Number of training samples over all epochs; a sample counts once for each epoch.
        epochs: Number of epochs.
        called: The word for epochs in the reasons, such as `views`.
        dataset: The training samples, described in the reasons.
        begun_in: The precision of an interrupted run, which `auto` keeps; None for a new run.
        taught: The same samples as the teachers' inputs, if these are others.

    Raises:
        UserError: If a setting cannot be met on this machine.
    """
    device = device_type(training.device)
    # Students and teachers are decided separately: training a network costs three forward passes, answering one.
    roles = {"student": networks(method, trained=True), "teacher": networks(method, trained=False)}
    inputs = {"student": example, "teacher": example if taught is None else taught}
    flops = {network: _flops(network, inputs[who]) for who, role in roles.items() for network in role}
    total = sum(flops.values())
    precision, why_precision = _precision(training.precision, device, total, method)
    # The interrupted run may have been on another kind of device.
    begun_in = begun_in and _on(device, begun_in)
    goes_on = training.precision == "auto" and begun_in not in (None, precision)
    if goes_on:
        precision, why_precision = _as_begun(begun_in or precision, precision, device, total, method)
    fused, why_fused = _fused(training, method, precision)
    # A device that is not listed counts as an ordinary accelerator.
    seconds = {network: each * samples / FLOPS_PER_SECOND.get(device, 1e12) for network, each in flops.items()}
    # Where attention is read, a network is not compiled.
    plain = {who: [one for one in role if not one.reads_attention] for who, role in roles.items()}
    shares = {who: _pays_back_after({one: seconds[one] for one in role}, device) for who, role in plain.items() if role}
    compiled, why_compiled = _compiled(training.compile, shares, epochs, called)
    channels_last = training.channels_last != "off" and isinstance(example, Tensor) and example.ndim == 4
    keep_memory, why_memory = keeping(training.keep_memory, device)
    count, why_threads = _threads(training.threads, device, total)
    return Decision(
        device=device,
        precision=precision,
        channels_last=channels_last,
        compile="student" in compiled,
        compile_teachers="teacher" in compiled,
        fused=fused,
        threads=count,
        reasons=(
            why_precision,
            "channels-last" if channels_last else "contiguous memory",
            why_compiled,
            *_attention(roles),
            *_constants(roles["teacher"] if "teacher" in compiled else (), device),
            *why_fused,
            *why_memory,
            *why_threads,
            *(f"a teacher ends behind {_last(one)}" for one in roles["teacher"] if not one.gives_logits),
            *_data(dataset, training.workers),
        ),
        goes_on=goes_on,
        keep_memory=keep_memory,
    )


def _precision(wish: str, device: str, flops: float, method: Method) -> tuple[str, str]:
    precision, why = _fast_precision(wish, device, flops)
    if precision != "bf16-mixed" or device != "cpu" or not (wrong := unsound_convolutions(method)):
        return precision, why
    layers = wrong[0] if len(wrong) == 1 else f"{wrong[0]} and {len(wrong) - 1} more"
    if wish == "auto":
        return "32-true", f"float32 (in bf16 this machine computes the convolution {layers} wrongly)"
    return precision, f"{precision} (asked for, though this machine computes the convolution {layers} wrongly in it)"


def _as_begun(begun_in: str, here: str, device: str, flops: float, method: Method) -> tuple[str, str]:
    precision, why = _precision(begun_in, device, flops, method)
    return precision, f"{why.replace('asked for', 'as it was begun')} rather than {here}"


def _on(device: str, precision: str) -> str:
    """Return the precision that Fabric uses on a device: a processor computes in bf16 instead of fp16."""
    return "bf16-mixed" if precision == "16-mixed" and device == "cpu" else precision


def _fast_precision(wish: str, device: str, flops: float) -> tuple[str, str]:
    if _on(device, wish) != wish:
        return "bf16-mixed", f"bf16-mixed (asked for: {wish}, which is bf16 on a processor)"
    if wish != "auto":
        return wish, f"{wish} (asked for)"
    if flops < SMALL_FLOPS and device == "cpu":
        return "32-true", "float32 (networks this small gain nothing from bf16)"
    native = has_native_bf16(device)
    if native is None:
        return "32-true", f"float32 (torch {torch.__version__} cannot say whether bf16 is native here)"
    if native:
        return "bf16-mixed", "bf16 mixed precision (native on this hardware)"
    return "32-true", "float32 (no native bf16 here)"


def _fused(training: Training, method: Method, precision: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether optimizers are fused, and the reason; no reason if nothing is trained.

    Raises:
        UserError: If fusing is asked for and impossible.
    """
    if not any(parameter.requires_grad for parameter in method.parameters()):
        return False, ()
    if training.fused == "off":
        return False, ("optimizer not fused (asked for)",)
    # Only fp16 scales its losses: its gradients would otherwise underflow.
    scaled = precision == "16-mixed"
    if not scaled or not (training.clip_norm or any(spec.clip_norm for spec in method.optimizers().values())):
        return True, ("fused optimizer",)
    if training.fused == "on":
        raise UserError(
            "In 16-mixed precision a fused optimizer undoes the scale of the gradients itself, and they cannot be "
            "clipped before that: leave --fused to auto, take --precision bf16-mixed, or do not clip (--clip-norm)."
        )
    return False, ("optimizer not fused (gradients are clipped, and scaled for 16-mixed)",)


def _pays_back_after(seconds: Mapping[FeatureExtractor, float], device: str) -> float:
    """Return the share of the run after which compiling some networks has saved as much time as it takes.

    Args:
        seconds: Time of each network's forward passes over the whole run.
        device: Type of the device.
    """
    spent = saved = 0.0
    for network, forward in seconds.items():
        # Weights become constants of the code on processors only.
        frozen = device == "cpu" and can_freeze(network)
        takes, gain, passes = _TRAINED if is_trained(network) else _FROZEN if frozen else _ANSWERING
        spent, saved = spent + takes, saved + gain * passes * forward
    return spent / saved if saved else math.inf


def _compiled(wish: Switch, shares: Mapping[str, float], epochs: int, called: str) -> tuple[set[str], str]:
    """Return the roles whose networks are compiled, and the reason, from the share at which each role pays back."""
    if wish != "auto":
        return {"student", "teacher"} if wish == "on" else set(), f"compilation {wish} (asked for)"
    after = {who: max(1, math.ceil(share * epochs)) for who, share in shares.items() if share < _PAID_BACK_BY}
    if not after:
        return set(), "not compiled (the run is too short for it to pay back)" if shares else "nothing to compile"
    told = [f"pays back after {number} of {epochs} {called}" for number in after.values()]
    if len(after) == 2:
        return set(after), f"compiled (the student's {told[0]}, the teacher's {told[1]})"
    [who] = after
    others = [other for other in shares if other not in after]
    return set(after), f"{who} compiled ({told[0]}), {others[0]} not" if others else f"compiled ({told[0]})"


def _attention(roles: Mapping[str, Sequence[FeatureExtractor]]) -> tuple[str, ...]:
    who = [who for who, role in roles.items() if any(one.reads_attention for one in role)]
    if not who:
        return ()
    return (f"attention of {' and '.join(who)} is computed once more where it is read, and uncompiled",)


def _constants(teachers: Sequence[FeatureExtractor], device: str) -> tuple[str, ...]:
    frozen = device == "cpu" and any(can_freeze(teacher) for teacher in teachers)
    return ("the teacher's weights are constants of its code",) if frozen else ()


def _threads(wish: int | None, device: str, flops: float) -> tuple[int | None, tuple[str, ...]]:
    """Return the number of processor threads, None for torch's choice, and the reason; no reason off the processor."""
    if wish is not None:
        return wish, (f"{wish} threads (asked for)",)
    if device != "cpu":
        return None, ()
    # Threads of a network this small wait for each other longer than they compute: on a busy machine, 20 times longer.
    if flops < SMALL_FLOPS:
        return 1, ("1 thread (networks this small gain nothing from more)",)
    return None, (f"{torch.get_num_threads()} threads",)


def keeping(wish: Switch, device: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether freed memory is kept for the next step, and the reason; no reason if `auto` does not keep it.

    Raises:
        UserError: If keeping it is asked for and impossible.
    """
    if wish == "on" and not can_keep_memory():
        raise UserError("The C library of this system cannot keep freed memory: leave out --keep-memory.")
    if wish != "auto":
        return wish == "on", (f"keeping memory {wish} (asked for)",)
    # An accelerator's memory is kept by torch itself.
    kept = device == "cpu" and can_keep_memory()
    return kept, ("freed memory kept for the next step",) if kept else ()


def _data(dataset: Any, workers: int) -> tuple[str, ...]:
    if isinstance(dataset, ResidentImages):
        return (f"{len(dataset):,} images in memory ({dataset.images.nbytes / 2**20:,.1f} MiB)",)
    if isinstance(dataset, StreamedImages):
        return (f"{len(dataset):,} images read when they are needed, by {workers} processes",)
    return ()


def _last(network: FeatureExtractor) -> str:
    """Return the layer after which a network stops if only its layers are read."""
    return network.layers[0] if len(network.layers) == 1 else f"the last of {', '.join(network.layers)}"


def _flops(network: FeatureExtractor, example: Any) -> float:
    """Return floating-point operations of one sample's forward pass."""
    return float(forward_flops(network, lambda: network(example))) / max(1, len(Batch(inputs=example)))
