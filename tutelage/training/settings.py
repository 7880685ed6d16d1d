"""The settings of a training run, and the optimizer and learning rate that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from tutelage.core.method import OptimizerSpec, Progress
from tutelage.core.schedules import Schedule, check_milestones, constant, cosine, steps
from tutelage.errors import UserError

Switch = Literal["auto", "on", "off"]
Course = Literal["cosine", "steps", "constant"]
# An interrupted run may go on with other values of these, because they do not change the result.
CONVENIENCES = frozenset({"fused", "keep_memory", "threads", "workers", "checkpoint_seconds", "log_every"})


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained. The defaults suit small images.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples in a batch.
        lr: Peak learning rate.
        momentum: Momentum of SGD.
        nesterov: Whether SGD looks ahead.
        weight_decay: Coupled weight decay, on every parameter.
        optimizer: `sgd` or `adamw`.
        schedule: Course of the learning rate after the warm-up: `cosine` to zero, `steps`, or `constant`.
        milestones: For `steps`: the shares of the run after which the learning rate falls.
        gamma: For `steps`: the factor by which it falls.
        warmup_epochs: Epochs over which the learning rate rises from zero, batch by batch.
        clip_norm: Largest gradient norm; none by default.
        keep: Which weights a run leaves: those of the best validation epoch, or the last.
        precision: `auto` takes bf16 where it is native, else float32; resumed, a run keeps its own.
        channels_last: Memory format of images and convolutions; `auto` is on.
        compile: Whether to compile the networks; `auto` does so where it pays back.
        fused: Whether an optimizer updates all its parameters in one pass; `auto` is on if gradients can be clipped so.
        keep_memory: Whether memory that a step frees is kept for the next one rather than given back; `auto` keeps it
            on a processor, where the C library can.
        threads: Processor threads to compute with; by default as many as there are, and one for tiny networks.
        device: `auto`, `cpu`, `cuda`, `mps`.
        devices: How many of them.
        workers: Processes that decode images, for data that do not stay in memory.
        checkpoint_seconds: Longest time between two checkpoints.
        log_every: Batches between two readings of the losses.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    optimizer: Literal["sgd", "adamw"] = "sgd"
    schedule: Course = "cosine"
    milestones: Sequence[float] = (0.3, 0.6, 0.8)
    gamma: float = 0.2
    warmup_epochs: float = 1.0
    clip_norm: float | None = None
    keep: Literal["best", "last"] = "best"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: Switch = "auto"
    compile: Switch = "auto"
    fused: Switch = "auto"
    keep_memory: Switch = "auto"
    threads: int | None = None
    device: str = "auto"
    devices: int = 1
    workers: int = 2
    checkpoint_seconds: float = 60.0
    log_every: int = 50

    def __post_init__(self) -> None:
        # Here and not in the types of the flags, so that Python and the command line refuse the same in the same words.
        positive = ("epochs", "batch_size", "lr", "devices", "log_every")
        for name in positive:
            # `<= 0` would let NaN through.
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} must be above zero.")
        for name in ("momentum", "weight_decay", "warmup_epochs", "workers", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} must be zero or above.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads} must be 1 or more; without it, Tutelage chooses.")
        check_milestones(self.milestones)

    def identity(self) -> dict[str, Any]:
        """Return the settings that a result depends on. The others are set to their defaults."""
        return asdict(self) | {found.name: found.default for found in fields(self) if found.name in CONVENIENCES}

    def lr_factor(self, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
        """Return the factor on the peak learning rate for the batch number `step`, counted from zero."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        # A warm-up as long as the run would never reach the peak, so it is left out.
        if warmup and total_steps > warmup and step < warmup:
            # From the first fraction rather than from zero, which would waste a batch.
            return (step + 1) / warmup
        return self._course(Progress(step=step, total_steps=total_steps))

    @property
    def _course(self) -> Schedule:
        """The factor on the peak learning rate after the warm-up."""
        match self.schedule:
            case "cosine":
                return cosine(1.0, 0.0)
            case "steps":
                return steps(1.0, milestones=self.milestones, gamma=self.gamma)
            case "constant":
                return constant(1.0)

    def build_optimizer(self, spec: OptimizerSpec, *, fused: bool | None = None) -> Optimizer:
        """Return the optimizer of a spec, each parameter group with its peak learning rate as `initial_lr`.

        Args:
            spec: The parameters to train, and the settings of their own.
            fused: Whether the optimizer may update all its parameters in one pass; by default, unless `self.fused` is
                `off`.
        """
        fused = self.fused != "off" if fused is None else fused
        optimizer = spec.build(spec.params) if spec.build else self._default(spec.params, fused=fused)
        if not fused:
            _take_apart(optimizer)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"] = group["lr"] * spec.lr_scale
            group["weight_decay"] = group.get("weight_decay", 0.0) * spec.weight_decay_scale
        return optimizer

    def _default(self, params: Iterable[nn.Parameter], *, fused: bool) -> Optimizer:
        if self.optimizer == "adamw":
            return torch.optim.AdamW(params, lr=self.lr, weight_decay=self.weight_decay, fused=fused or None)
        return torch.optim.SGD(
            params,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            # None rather than False: False would also disable torch's multi-tensor updates.
            fused=fused or None,
        )


def _take_apart(optimizer: Optimizer) -> None:
    """Turn off fusing in an optimizer that has not stepped yet; it may be one that a method built."""
    for group in (optimizer.defaults, *optimizer.param_groups):
        if group.get("fused"):
            group["fused"] = None
    # The gradient scaler reads this attribute, and would leave the division by the scale to the optimizer.
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = False
