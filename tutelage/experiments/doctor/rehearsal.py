"""A dry run that examines the stages of a recipe, one after the other, instead of training them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from tutelage.core.method import Method, TransferSet
from tutelage.core.pairing import LayerPair
from tutelage.data.batch import moved
from tutelage.data.dataset import Data
from tutelage.errors import notice
from tutelage.evaluation.scores import batch_for
from tutelage.experiments.doctor.cost import (
    Memory,
    bearable_samples,
    measure_memory,
    seconds_per_step,
    seconds_to_score,
)
from tutelage.experiments.doctor.losses import Term, measure_terms
from tutelage.features.extractor import FeatureExtractor, is_trained
from tutelage.models.answers import answer
from tutelage.models.modes import evaluating
from tutelage.models.size import NetworkSize, measure
from tutelage.system import chance
from tutelage.training.decisions import Decision, decide
from tutelage.training.dry_run import DryRun
from tutelage.training.settings import Training
from tutelage.training.state import Stop

# Bytes that a loss alone takes, above which that is told at once.
_MUCH = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that takes part in a stage.

    Attributes:
        name: Its name in the method.
        size: Its parameters and multiply-adds.
        shape: Shape of its answer to one sample.
        trained: Whether the stage trains it.
    """

    name: str
    size: NetworkSize
    shape: tuple[int, ...]
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The findings about a training stage.

    Attributes:
        name: Its name.
        epochs: Epochs that it will train, at most.
        steps: Batches of an epoch.
        networks: The networks in it.
        pairs: The pairs of layers of student and teacher that are compared.
        decision: Precision, memory format, compilation.
        terms: The terms of its loss.
        memory: Memory of a training step.
        step_seconds: Time of a training step.
        seconds: Time of the whole stage.
        rehearsed: With how many samples the losses were measured, where a whole batch takes too long; else None.
    """

    name: str
    epochs: int
    steps: int
    networks: tuple[Network, ...]
    pairs: tuple[LayerPair, ...]
    decision: Decision
    terms: tuple[Term, ...]
    memory: Memory
    step_seconds: float
    seconds: float
    rehearsed: int | None = None


class Rehearsal(DryRun):
    """A dry run that examines each stage by a few of its batches.

    Args:
        training: The settings.

    Attributes:
        stages: The findings about each stage, in order.
    """

    def __init__(self, training: Training) -> None:
        super().__init__(training)
        self.stages: list[Stage] = []

    def meet(self, name: str, method: Method, data: Data, *, epochs: int | None, stop: Stop | None) -> None:
        """Examine a stage. This trains its network for a few batches at most."""
        chance.seed_everything(self.seed_of(name))
        self.stages.append(_examine(name, method, data, self.training, epochs or self.training.epochs, stop or Stop()))


def _examine(name: str, method: Method, data: Data, training: Training, epochs: int, stop: Stop) -> Stage:
    example = data.example(2)
    # Where a teacher reads the samples otherwise, it is asked about its own inputs.
    taught = data.as_taught().example(2) if data.is_taught_apart else example
    samples = data.count("train") * epochs
    decision = decide(training, method, example, samples=samples, epochs=epochs, dataset=data.train, taught=taught)
    networks = tuple(_networks(method, example, taught))
    device = torch.device(decision.device)
    method.to(device).train()
    transfer = method.transfer_set(data.train)
    # Without workers: starting processes takes longer than one batch.
    loader = transfer.loader(data, batch_size=training.batch_size, workers=0, device=device)
    foretold = method.memory_of_terms(training.batch_size)
    _tell_memory(name, foretold, training.batch_size)
    short = _shortened(method, moved(example, device), moved(taught, device), transfer, training)
    fewer = transfer.loader(data, batch_size=short.batch_size, workers=0, device=device)
    batch = next(iter(fewer.epoch(0)))
    times = training.batch_size / short.batch_size
    # Before the timing, which trains the method.
    terms = measure_terms(method, batch, total_steps=epochs * len(loader), epochs=epochs)
    memory = measure_memory(method, batch, training)
    memory = replace(memory, activations=round(times * memory.activations), terms=foretold)
    step = times * seconds_per_step(method, data, short)
    # A score at which to stop cannot be foreseen, so the whole schedule counts.
    planned = min(epochs, stop.after or epochs)
    validation, scoring = _scoring(method, data, training, short, device)
    return Stage(
        name=name,
        epochs=planned,
        steps=len(loader),
        networks=networks,
        pairs=tuple(method.pairs),
        decision=decision,
        terms=tuple(terms),
        memory=memory,
        step_seconds=step,
        seconds=planned * (len(loader) * step + validation) + scoring,
        rehearsed=short.batch_size if times > 1 else None,
    )


def _scoring(
    method: Method, data: Data, training: Training, short: Training, device: torch.device
) -> tuple[float, float]:
    """Return the time of scoring an epoch, and of scoring the trained networks at the end."""
    whole = short.batch_size == training.batch_size
    asked = batch_for(data) if whole else min(batch_for(data), short.batch_size)
    validation = seconds_to_score(method, data, "validation", short.batch_size, device)
    # At the end, the best and the last weights are scored on every split that has targets.
    return validation, 2 * sum(seconds_to_score(method, data, split, asked, device) for split in data.measured)


def _shortened(method: Method, example: Any, taught: Any, transfer: TransferSet, training: Training) -> Training:
    """Return the settings with a batch of as many samples as a step can be rehearsed on in a few seconds."""
    # These form batches of their own.
    if transfer.batches is not None or transfer.make_loader is not None or isinstance(transfer.dataset, DataLoader):
        return training
    readers = [module for module in method.modules() if isinstance(module, FeatureExtractor)]
    asked = [(reader.model, example if is_trained(reader) else taught) for reader in readers]
    return replace(training, batch_size=bearable_samples(asked, training.batch_size))


def _tell_memory(name: str, foretold: Mapping[str, int], samples: int) -> None:
    """Tell of a loss that takes much memory, before anything takes it."""
    for term, size in foretold.items():
        if size > _MUCH:
            notice(
                f"{name}: the loss {term} takes {size / 1e9:.1f} GB at once with {samples} samples in a batch: lower "
                "--batch-size, or let its method compare fewer places."
            )


def _networks(method: Method, example: Any, taught: Any) -> list[Network]:
    found = []
    for name, module in method.named_modules():
        if not isinstance(module, FeatureExtractor):
            continue
        trained = any(parameter.requires_grad for parameter in module.parameters())
        inputs = example if trained else taught
        with evaluating(module), torch.no_grad():
            shape = tuple(answer(module.model, inputs).shape[1:])
        found.append(
            Network(
                # A wrapper's networks are those of the method that it wraps.
                name=name.removesuffix(".extractor").rpartition("method.")[2],
                size=measure(module.model, inputs),
                shape=shape,
                trained=trained,
            )
        )
    return found
