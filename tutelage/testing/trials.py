"""What the conformance suite does with a method: steps, killed runs, half precision, a plain loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.core.method import Method, OptimizerSpec, Progress
from tutelage.core.registry import Entry
from tutelage.core.schedules import cosine
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.system.chance import seed_everything
from tutelage.system.console import Silent
from tutelage.testing.kinds import Kind, home
from tutelage.testing.toys import BATCH, STUDENT_WIDTH, TRAINING, methods_of
from tutelage.training.checkpoint import student_state
from tutelage.training.driver import Driver

STEPS = 20


def plain_loop(method: Method, data: Data, *, seed: int = 0) -> None:
    """Train as the driver does, in as few lines as possible: the driver is compared with this."""
    transfer = method.transfer_set(data.train)
    # Channels-last, as the driver decides: another memory format adds up in another order.
    loader = transfer.loader(data, batch_size=BATCH, seed=seed, channels_last=True)
    method.train().to(memory_format=torch.channels_last)
    specs = method.optimizers()
    optimizers = {name: TRAINING.build_optimizer(spec) for name, spec in specs.items()}
    step, total = 0, TRAINING.epochs * len(loader)
    for epoch in range(TRAINING.epochs):
        method.train()
        for number, batch in enumerate(loader.epoch(epoch)):
            progress = Progress(step=step, total_steps=total, epoch=epoch, first_of_epoch=number == 0)
            for name, optimizer in optimizers.items():
                course = specs[name].schedule or cosine(1.0, 0.0)
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * course(progress)
            for update in method.step(batch, progress):
                optimizers[update.optimizer].zero_grad()
                # Only into the parameters of the update's own optimizer.
                torch.autograd.backward(method.total(update, progress), inputs=list(specs[update.optimizer].params))
                _clip(specs[update.optimizer])
                optimizers[update.optimizer].step()
            step += 1


def _clip(spec: OptimizerSpec) -> None:
    if spec.clip_norm:
        nn.utils.clip_grad_norm_(spec.params, spec.clip_norm)


class KilledError(Exception):
    """The run was killed."""


class _Killer(Silent):
    """Ends a run after some batches, as kill -9 would."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, steps: int) -> None:
        """Count the batch."""
        self.left -= 1
        if self.left < 0:
            raise KilledError


def fresh_methods(entry: Entry, kind: Kind | None = None, *, batch_norm: bool = True) -> dict[str, Method]:
    """Return the methods that an entry trains on a kind of data, by stage, the same at every call.

    A method that refuses a teacher wider than the student gets one as wide.
    """
    kind = kind or home(entry)
    try:
        seed_everything(0)
        return methods_of(entry, kind.experiment(batch_norm=batch_norm))
    except UserError:
        seed_everything(0)
        return methods_of(entry, kind.experiment(batch_norm=batch_norm, teacher_width=STUDENT_WIDTH))


def updates_of(method: Method, batch: Batch) -> list[Any]:
    """Return the updates of a first step."""
    return list(method.train().step(batch, Progress(total_steps=STEPS)))


def take_steps(method: Method, batch: Batch, *, steps: int) -> list[float]:
    """Take steps on one batch; return the loss of each, summed over its updates and weighted as at the end of the run.

    By the weights of each step, a loss whose weight rises would seem to rise.
    """
    specs, end = method.train().optimizers(), Progress(step=steps, total_steps=steps)
    optimizers = {name: TRAINING.build_optimizer(spec) for name, spec in specs.items()}
    totals = []
    for step in range(steps):
        progress = Progress(step=step, total_steps=steps)
        total = 0.0
        for update in method.step(batch, progress):
            loss = method.total(update, progress)
            optimizers[update.optimizer].zero_grad()
            torch.autograd.backward(loss, inputs=list(specs[update.optimizer].params))
            _clip(specs[update.optimizer])
            optimizers[update.optimizer].step()
            total += method.total(update, end).item()
        totals.append(total)
    return totals


def fit_stage(
    entry: Entry,
    stage: str,
    file: Path | None,
    kind: Kind | None = None,
    *,
    seed: int = 0,
    stop_at: int | None = None,
) -> tuple[dict[str, Tensor], bool]:
    """Train one stage by the driver; return its state, and whether there was a checkpoint to go on from."""
    saved, kind = file is not None and file.exists(), kind or home(entry)
    method = fresh_methods(entry, kind)[stage]
    reporter = Silent() if stop_at is None else _Killer(stop_at)
    # A checkpoint after every batch, so that a killed run loses none.
    training = replace(TRAINING, checkpoint_seconds=0.0)
    Driver(training, seed=seed, reporter=reporter).fit(method, kind.data(), checkpoint_file=file)
    return student_state(method), saved


def replay(method: Method, data: Data) -> None:
    """Train a method for an epoch by the driver, which refuses losses that are not finite."""
    Driver(replace(TRAINING, epochs=1), seed=0).fit(method, data.with_splits(validation=None))


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """Fail unless two states are equal up to the order of summation."""
    different = [key for key in other if not torch.allclose(one[key].float(), other[key].float(), rtol=1e-5, atol=1e-6)]
    assert not different, f"{what}, {different[:3]} differ"


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], what: str) -> None:
    """Fail unless two states are bit-identical."""
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, f"{what}, {different[:3]} differ"


def make_confident(method: Method, batch: Batch) -> None:
    """Scale the classifiers so that the largest logit on the batch is 10,000."""
    with torch.no_grad():
        for network in [module for module in method.train().modules() if isinstance(module, FeatureExtractor)]:
            # A network that stops at its layers has no logits to scale.
            if not network.gives_logits:
                continue
            logits = network(batch.inputs).logits
            factor = 1e4 / logits.abs().max()
            # Every linear layer with a number for each class: the classifier, and those of exits.
            for layer in (module for module in network.modules() if isinstance(module, nn.Linear)):
                if layer.out_features == logits.shape[1]:
                    layer.weight.mul_(factor)
                    layer.bias.mul_(factor)


def assert_finite(method: Method, batch: Batch, dtype: torch.dtype, stage: str, *, gradients: bool) -> None:
    """Fail unless losses, and gradients where asked for, are finite under a precision."""
    progress = Progress(total_steps=STEPS)
    updates = method.train().step(batch, progress)
    while True:
        with torch.autocast("cpu", dtype):
            # As the driver does: only the method's code runs under autocast.
            update = next(updates, None)
        if update is None:
            return
        for name, loss in update.losses.items():
            assert torch.isfinite(loss), f"{stage}: under {dtype}, the loss {name} is {loss.item()}"
        if gradients:
            params = list(method.optimizers()[update.optimizer].params)
            found = torch.autograd.grad(method.total(update, progress), params, allow_unused=True)
            assert all(g is None or bool(torch.isfinite(g).all()) for g in found), f"{stage}: {dtype} breaks gradients"


def part_of(batch: Batch, first: int, step: int) -> Batch:
    """Return every `step`-th sample of a batch, from `first` on."""
    cut = {key: _every(getattr(batch, key), first, step) for key in ("inputs", "targets", "indices")}
    return replace(batch, **cut)


def _every(value: Any, first: int, step: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _every(part, first, step) for name, part in value.items()}
    return None if value is None else value[first::step]


def gradients_of(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the gradients of a first step's updates, without a step between them, by the name of the parameter.

    Batch norm is in eval mode, because otherwise it mixes the samples of a batch.
    """
    method.train()
    for layer in (module for module in method.modules() if isinstance(module, _BatchNorm)):
        layer.eval()
    progress, specs = Progress(total_steps=STEPS), method.optimizers()
    found: dict[str, Tensor] = {}
    for number, update in enumerate(method.step(batch, progress)):
        theirs = {id(parameter) for parameter in specs[update.optimizer].params}
        named = {name: p for name, p in method.named_parameters() if id(p) in theirs}
        gradients = torch.autograd.grad(method.total(update, progress), list(named.values()), allow_unused=True)
        found |= {f"update {number}: {name}": g for name, g in zip(named, gradients, strict=True) if g is not None}
    return found
