"""The training loop. Only this file trains by Fabric, and it knows no method by name."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from rich.text import Text
from torch import Tensor, nn
from torch.optim import Optimizer

from tutelage.core.method import Method, OptimizerSpec, Progress, Update
from tutelage.data.batch import Batch
from tutelage.data.dataset import Data
from tutelage.data.loader import Loader
from tutelage.data.task import Metric
from tutelage.errors import UserError
from tutelage.evaluation.scores import validation_metrics
from tutelage.system import chance, processes
from tutelage.system.console import Reporter, Silent
from tutelage.system.devices import threads
from tutelage.system.interrupt import Interrupted, Interruption
from tutelage.system.memory import kept_memory
from tutelage.training import checkpoint
from tutelage.training.compilation import compiled
from tutelage.training.decisions import Decision, decide
from tutelage.training.failures import faulty_sample, single_samples
from tutelage.training.memory_format import store_channels_last
from tutelage.training.reach import Reach
from tutelage.training.settings import Training
from tutelage.training.state import State, Stop

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Driver:
    """Trains methods.

    Args:
        training: The settings.
        seed: Seed of the data's order and views, and of every random number that a method draws.
        reporter: Shows the progress.
    """

    def __init__(self, training: Training, *, seed: int = 0, reporter: Reporter | None = None) -> None:
        self.training, self.seed = training, seed
        self.reporter = reporter or Silent()

    def fit(
        self,
        method: Method,
        data: Data,
        *,
        title: str = "training",
        epochs: int | None = None,
        stop: Stop | None = None,
        checkpoint_file: Path | None = None,
    ) -> State:
        """Train a method in place, from its checkpoint if there is one.

        Args:
            method: The method; it ends with the weights of the last epoch.
            data: The data to train and validate on.
            title: The run's name while progress is shown.
            epochs: Length of the schedule; the settings' by default.
            stop: When to end before the schedule does; never by default.
            checkpoint_file: Where to save; nothing is saved by default.

        Raises:
            Interrupted: If Ctrl-C or SIGTERM came; everything is saved in the checkpoint, if there is one.
            UserError: If a loss is not finite.
        """
        # First of all, so that nothing is drawn before it.
        chance.seed_everything(self.seed)
        fit = _Fit(self, method, data, epochs or self.training.epochs, stop or Stop(), checkpoint_file)
        self.reporter.begin(title, total=fit.total_steps, done=fit.state.steps)
        finished = False
        try:
            memory = kept_memory(fit.decision.keep_memory)
            ready = compiled(method, fit.decision, fit.loader, self.reporter)
            with Interruption() as interruption, threads(fit.decision.threads), memory, ready:
                fit.run(interruption)
            finished = True
        finally:
            self.reporter.end(finished=finished)
        return fit.state


class _Fit:
    """One training run."""

    def __init__(
        self, driver: Driver, method: Method, data: Data, epochs: int, stop: Stop, checkpoint_file: Path | None
    ) -> None:
        self.training, self.reporter, self.method = driver.training, driver.reporter, method
        self.data, self.epochs, self.stop, self.checkpoint_file = data, epochs, stop, checkpoint_file
        saved = None if checkpoint_file is None or not checkpoint_file.exists() else checkpoint.load(checkpoint_file)
        begun_in = None if saved is None else saved.get("precision")
        facts: dict[str, Any] = {"samples": data.count("train") * epochs, "epochs": epochs, "dataset": data.train}
        if data.is_taught_apart:
            facts["taught"] = data.as_taught().example(1)
        decision = decide(self.training, method, data.example(1), begun_in=begun_in, **facts)
        self.fabric, self.decision = _fabric(self.training, decision), decision
        self.loader, self.validation = self._loaders(data, driver.seed, decision)
        self.total_steps = epochs * len(self.loader)
        self._prepare(decision)
        # The parameters are on their device by now, which fused optimizers ask for.
        self.specs = method.optimizers()
        self.optimizers = {name: self._optimizer(spec) for name, spec in self.specs.items()}
        self.state, self._reach = State(), Reach()
        self._saved_at = time.monotonic()
        if saved is None:
            self.reporter.note(Text(str(decision), "dim"), once=True)
        else:
            self._resume(saved)

    def run(self, interruption: Interruption) -> None:
        """Train until the schedule ends, or `stop` is reached."""
        started, before = time.monotonic(), self.state.seconds
        while self.state.epoch < self.epochs and not self.stop.reached(
            self.state.epoch, self.state.history, self.data.task
        ):
            self.method.train()
            for batch in self.loader.epoch(self.state.epoch, self.state.batch):
                self._step(batch)
                self.state.seconds = before + time.monotonic() - started
                self._between_steps(interruption)
            self._end_epoch()
            self.state.seconds = before + time.monotonic() - started
            self._heed(interruption)

    def _loaders(self, data: Data, seed: int, decision: Decision) -> tuple[Loader, Loader | None]:
        transfer = self.method.transfer_set(data.train)
        arguments: dict[str, Any] = {
            "batch_size": self.training.batch_size,
            "device": self.fabric.device,
            "channels_last": decision.channels_last,
            "workers": self.training.workers,
        }
        shares = {"rank": self.fabric.global_rank, "world_size": self.fabric.world_size}
        train = transfer.loader(data, seed=seed, **shares, **arguments)
        if len(train) == 0:
            raise UserError(f"{data.name} gives no training batch: it has {data.count('train')} samples.")
        # Not shared: each process validates on all samples, and so all choose the same best epoch.
        validation = data.loader("validation", train=False, **arguments) if "validation" in data.measured else None
        return train, validation

    def _prepare(self, decision: Decision) -> None:
        self.method.train()
        self.method.to(self.fabric.device)
        if decision.channels_last:
            store_channels_last(self.method)
        if self.fabric.world_size > 1:
            processes.share([*self.method.parameters(), *self.method.buffers()])

    def _optimizer(self, spec: OptimizerSpec) -> Optimizer:
        optimizer = self.training.build_optimizer(spec, fused=self.decision.fused)
        return cast("Optimizer", self.fabric.setup_optimizers(optimizer))

    def _step(self, batch: Batch) -> None:
        state = self.state
        progress = Progress(
            step=state.steps, total_steps=self.total_steps, epoch=state.epoch, first_of_epoch=state.batch == 0
        )
        self._set_lr(progress)
        for update in self._updates(batch, progress):
            optimizer, spec = self.optimizers[update.optimizer], self.specs[update.optimizer]
            optimizer.zero_grad()
            # Only the optimizer's own parameters get gradients, though the graph may reach those of other networks.
            self.fabric.backward(self.method.total(update, progress), inputs=list(spec.params))
            self._reach.note(spec.params)
            self._average_gradients(spec.params)
            clip = spec.clip_norm or self.training.clip_norm
            if clip:
                # No error here: the scaler skips steps that overflow in fp16, and other faults show in the loss.
                self.fabric.clip_gradients(self.method, optimizer, max_norm=clip, error_if_nonfinite=False)
            optimizer.step()
            self._add(update)
        if (told := self._reach.told(self.method)) is not None:
            self.reporter.note(told, once=True)
        state.batch, state.steps = state.batch + 1, state.steps + 1
        state.samples += len(batch) * self.fabric.world_size

    def _updates(self, batch: Batch, progress: Progress) -> Iterator[Update]:
        updates = self.method.step(batch, progress)
        # Not a for loop: only the method's own code runs under autocast, not the backward pass between two updates.
        while True:
            with self.fabric.autocast(), single_samples(self.state):
                update = next(updates, None)
            if update is None:
                return
            yield update

    def _set_lr(self, progress: Progress) -> None:
        steps = len(self.loader)
        factor = self.training.lr_factor(progress.step, steps_per_epoch=steps, total_steps=self.total_steps)
        for name, optimizer in self.optimizers.items():
            own = self.specs[name].schedule
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (factor if own is None else own(progress))

    def _average_gradients(self, params: Sequence[nn.Parameter]) -> None:
        if self.fabric.world_size == 1:
            return
        # By hand rather than by DDP, which expects one backward pass over all parameters in a step.
        gradients = [p.grad for p in params if p.grad is not None]
        # One message for all gradients: many small ones would cost more.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        mean = cast("Tensor", self.fabric.all_reduce(flat, reduce_op="mean"))
        for gradient, part in zip(gradients, torch.split(mean, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _add(self, update: Update) -> None:
        prefix = "train/" if update.optimizer == "student" else f"train/{update.optimizer}/"
        for name, loss in update.losses.items():
            # Sums stay tensors on the device: reading a value here would wait for the device at each step.
            total, count = self.state.sums.get(prefix + name, (torch.zeros((), device=loss.device), 0))
            self.state.sums[prefix + name] = (total + loss.detach(), count + 1)

    def _between_steps(self, interruption: Interruption) -> None:
        if self.state.steps % self.training.log_every == 0:
            self.reporter.advance(self.training.log_every)
            self._check_finite()
        self._heed(interruption)
        if time.monotonic() - self._saved_at > self.training.checkpoint_seconds:
            self._save()

    def _heed(self, interruption: Interruption) -> None:
        if interruption.requested is not None:
            self._save()
            raise Interrupted(interruption.requested, _how_to_go_on(self.checkpoint_file))

    def _end_epoch(self) -> None:
        self._check_finite()
        if self.fabric.world_size > 1:
            # Each process has its own batch-norm statistics, but all must choose the same best epoch.
            processes.share(checkpoint.student_buffers(self.method))
        state = self.state
        metrics = {name: float(total) / count for name, (total, count) in state.sums.items()}
        # Of the first optimizer. The others follow the same course, unless a method gave them another.
        metrics["lr"] = float(next(iter(self.optimizers.values())).param_groups[0]["lr"])
        if self.validation is not None:
            metrics |= validation_metrics(self.method, self.validation, self.data, autocast=self.fabric.autocast)
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
        for name, value in metrics.items():
            state.history.setdefault(name, []).append(value)
        task = self.data.task
        scores = state.history.get(f"validation_{task.primary}", [])
        if _is_best(scores, task.metrics[task.primary]):
            state.best_epoch, state.best = state.epoch, checkpoint.snapshot(self.method)
        headline = f"validation {task.metrics[task.primary].text(scores[-1])}" if scores else ""
        self.reporter.epoch(state.epoch, self.epochs, metrics, headline=headline)

    def _check_finite(self) -> None:
        broken = [name for name, (total, _) in self.state.sums.items() if not bool(torch.isfinite(total))]
        if broken:
            file = self.checkpoint_file
            kept = f" The last checkpoint, {file}, is sound." if file is not None and file.exists() else ""
            remedy = faulty_sample(self.data) or (
                "Lower the learning rate (--lr), clip gradients (--clip-norm 1), or use float32 (--precision 32-true)."
            )
            raise UserError(
                f"The loss {broken[0].removeprefix('train/')!r} became infinite or NaN in epoch "
                f"{self.state.epoch + 1}, at or before batch {self.state.batch} of {len(self.loader)}. {remedy}{kept}"
            )

    def _save(self) -> None:
        if self.checkpoint_file is None or not self.fabric.is_global_zero:
            return
        # A checkpoint with a broken loss would replace the last sound one.
        self._check_finite()
        content = {
            "method": checkpoint.student_state(self.method),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": chance.random_state(),
            "state": self.state.packed(),
            "total_steps": self.total_steps,
            "precision": self.decision.precision,
            "loss_scale": self.fabric.strategy.precision.state_dict(),
        }
        checkpoint.save(self.checkpoint_file, content)
        self._saved_at = time.monotonic()

    def _resume(self, content: dict[str, Any]) -> None:
        if content["total_steps"] != self.total_steps:
            raise UserError(
                f"{self.checkpoint_file} belongs to a run of {content['total_steps']} batches, and this one has "
                f"{self.total_steps}. Use the settings it was started with, or another --out."
            )
        checkpoint.load_student_state(self.method, content["method"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        # Empty unless the precision is 16-mixed.
        if scale := content.get("loss_scale"):
            self.fabric.strategy.precision.load_state_dict(scale)
        self.state = State.unpacked(content["state"], self.fabric.device)
        # Last: a draw after this would make the resumed run differ from an uninterrupted one.
        chance.restore_random_state(content["random"])
        told = f" {self.decision}" if self.decision.goes_on else ""
        text = f"Going on from epoch {self.state.epoch + 1}, batch {self.state.batch}.{told}"
        self.reporter.note(Text(text, "dim"))


def _is_best(scores: Sequence[float], metric: Metric) -> bool:
    """Return whether the last score is better than all before it; of equal scores, the first counts as best."""
    if not scores or math.isnan(scores[-1]):
        return False
    return all(math.isnan(before) or metric.better(scores[-1], before) for before in scores[:-1])


def _fabric(training: Training, decision: Decision) -> Fabric:
    # Imported here, because the import takes a second, and commands that train nothing should not wait for it.
    from lightning_fabric import Fabric

    # Fabric would log device and precision, which the decision's line has shown already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=decision.device,
        devices=training.devices,
        precision=decision.precision,  # type: ignore[arg-type]  # Fabric's own literals
        strategy="auto" if training.devices == 1 else "ddp",
    )
    if training.devices > 1:
        fabric.launch()
    return fabric


def _how_to_go_on(checkpoint_file: Path | None) -> str:
    if checkpoint_file is None:
        return "Stopped. Nothing was saved, because no folder was given (out=...)."
    return f"Stopped and saved to {checkpoint_file.parent}. Run the same command again to continue."
