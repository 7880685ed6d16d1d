"""Scores of networks on data: one pass over a split, batch by batch, for all predictions at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.method import DEPLOYED, Method
from tutelage.core.teachers.teacher import teachers_in
from tutelage.data.batch import Batch
from tutelage.data.criterion import Density
from tutelage.data.dataset import Data
from tutelage.data.loader import Loader
from tutelage.data.samplers import BoundedBatches
from tutelage.data.samples import Samples
from tutelage.data.task import Detail, Meter, Metric
from tutelage.errors import UserError
from tutelage.features.anatomy import EMBEDDING
from tutelage.features.extractor import FeatureExtractor
from tutelage.models.answers import answer
from tutelage.models.ensemble import Ensemble
from tutelage.models.modes import evaluating
from tutelage.system import processes

EVALUATION_BATCH = 256
# Of maps, an answer has numbers for each pixel: so many pixels are answered at once.
_PIXELS = 1 << 20
# Of tokens, an answer has a number for each token of the vocabulary, at each place: so many numbers at once, and the
# length of texts where it is not known.
_NUMBERS, _TOKENS = 1 << 26, 512
# Texts are measured at so many tokens at once, padding included: a batch of long ones would take the memory of many.
_AT_ONCE = 1 << 15

Predict = Callable[[Any], Mapping[str, Tensor]]
Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a network or an ensemble on a split. A score is also an attribute: `evaluation.accuracy`.

    Attributes:
        scores: The task's scores by metric. Names of scores on foreign data begin with `foreign_`.
        metrics: The title, unit and direction of each metric, by the same names.
    """

    scores: Mapping[str, float]
    metrics: Mapping[str, Metric]

    def __getattr__(self, name: str) -> float:
        # copy and pickle ask for private names before `scores` is set, which would recurse without end.
        if name.startswith("_") or name not in self.scores:
            raise AttributeError(f"There is no score {name!r}; there are {', '.join(vars(self).get('scores', ()))}.")
        return self.scores[name]

    def named(self, prefix: str) -> dict[str, float]:
        """Return the scores as `{prefix}_accuracy` and so on."""
        return {f"{prefix}_{name}": value for name, value in self.scores.items()}


@torch.no_grad()
def measure(
    predict: Predict,
    loader: Loader,
    make_meter: Callable[[], Meter],
    *,
    foreign: Loader | None = None,
    teacher: Callable[[Any], Tensor] | None = None,
    autocast: Autocast = nullcontext,
) -> dict[str, Meter]:
    """Return a meter for every prediction, over one pass of a loader.

    Where several processes train as one, each measures a part and all return the same: every process must call this.

    Args:
        predict: Maps inputs to answers by name.
        loader: The data, in a fixed order.
        make_meter: Returns a new meter.
        foreign: Samples of another dataset, for meters that compare uncertainty.
        teacher: Maps inputs to a teacher's answer, for meters that compare with it.
        autocast: Returns the context in which to predict.
    """
    meters: dict[str, Meter] = defaultdict(make_meter)
    for batch, answers in _answered(predict, loader, autocast):
        for name, said in answers.items():
            meters[name].update(said, batch.targets)
        if teacher is not None:
            taught = teacher(batch.inputs)
            for name, said in answers.items():
                meters[name].update_taught(said, taught, batch.targets)
    if foreign is not None:
        for _, answers in _answered(predict, foreign, autocast):
            for name, said in answers.items():
                meters[name].update_foreign(said)
    first, *others = processes.gather(dict(meters))
    for other in others:
        for name, meter in other.items():
            if name in first:
                first[name].merge(meter)
            else:
                # The first process had no batch of so few.
                first[name] = meter
    return first


def measure_network(
    network: nn.Module,
    data: Data,
    split: str,
    *,
    device: str,
    density: Density = "categorical",
    detail: Detail = "scores",
    batches: int | None = None,
) -> Meter:
    """Return a meter of a network's or an `Ensemble`'s answers on a split of the data. The network ends on the CPU.

    Args:
        network: The network. Members of an ensemble are asked one after the other for each batch.
        data: The data; their foreign samples, if any, are measured as well.
        split: The split's name, such as `train`, `validation` or `test`.
        device: Where to compute.
        density: How logits are read: `categorical` by their softmax, `dirichlet` as logarithms of concentrations.
        detail: How much to measure.
        batches: How many batches to measure on; all by default.

    Raises:
        UserError: If the members of an ensemble differ in their classes.
    """
    meter = data.task.meter(density=density, detail=detail)
    with _placed(network, device), evaluating(network), torch.no_grad():
        ask = _asker(network, data)
        # The first of few batches would hold the shortest texts alone.
        whole = measuring_loader(data, split, device) if batches is None else _in_order(data, split, device)
        for batch in islice(whole.epoch(0), batches):
            answer, members = ask(batch.inputs)
            meter.update(answer, batch.targets, members)
        if data.foreign is not None:
            for batch in measuring_loader(data, "foreign", device).epoch(0):
                meter.update_foreign(*ask(batch.inputs))
    return meter


def evaluate_network(
    network: nn.Module, data: Data, split: str, *, device: str, density: Density = "categorical"
) -> Evaluation:
    """Return all scores of a network or an `Ensemble` on a split, and on foreign data if there are any.

    Args:
        network: The network; it ends on the CPU.
        data: The data.
        split: The split's name, such as `train`, `validation` or `test`.
        device: Where to compute.
        density: How logits are read: `categorical` by their softmax, `dirichlet` as logarithms of concentrations.
    """
    meter = measure_network(network, data, split, device=device, density=density, detail="full")
    foreign = {f"foreign_{name}": value for name, value in meter.compute_foreign().items()}
    known = data.task.metrics
    metrics = {**known, **{f"foreign_{name}": metric for name, metric in known.items()}}
    scores = meter.compute() | foreign
    return Evaluation(scores=scores, metrics={name: metrics[name] for name in scores})


def answers_of(network: nn.Module, data: Data, split: str, *, device: str) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield the answers of a network or an `Ensemble` to a split, batch by batch: positions, and answers on the CPU.

    Args:
        network: The network; it ends on the CPU.
        data: The data.
        split: The split's name.
        device: Where to compute.
    """
    done = 0
    with _placed(network, device), evaluating(network):
        ask = _asker(network, data)
        for batch in measuring_loader(data, split, device).epoch(0):
            with torch.no_grad():
                said, _ = ask(batch.inputs)
            # A user's own loader does not number its samples.
            positions = range(done, done + len(said)) if batch.indices is None else batch.indices.tolist()
            done += len(said)
            yield positions, said.float().cpu()


def validation_metrics(
    method: Method, loader: Loader, data: Data, *, autocast: Autocast = nullcontext
) -> dict[str, float]:
    """Return an epoch's validation scores: all watched ones of the deployed prediction, the main one of the others.

    Args:
        method: The method; its first prediction is the deployed one.
        loader: The validation data.
        data: The data, for their task.
        autocast: Returns the context in which to predict.
    """
    task = data.task
    with evaluating(method):
        meters = measure(predictor(method, data), loader, lambda: task.meter(detail="watched"), autocast=autocast)
    # A task may give numpy's numbers, which a checkpoint could hold and not be read again.
    found = {
        name: {metric: float(value) for metric, value in meter.compute().items()} for name, meter in meters.items()
    }
    # A method names its deployed prediction first.
    deployed, *others = found
    own = {f"validation_{metric}": found[deployed][metric] for metric in task.watched if metric in found[deployed]}
    main = {name: found[name][task.primary] for name in others if task.primary in found[name]}
    return own | {f"validation_{task.primary}/{name}": value for name, value in main.items()}


def batch_for(data: Data) -> int:
    """Return how many samples are measured at once: fewer where each pixel or each token is answered."""
    if data.task.continues_texts:
        texts = (split.lengths for split in data.splits.values() if isinstance(split, Samples))
        longest = max((int(lengths.max()) for lengths in texts if lengths is not None), default=_TOKENS)
        return max(1, min(EVALUATION_BATCH, _NUMBERS // (longest * max(1, data.num_classes))))
    if not (data.task.has_maps and data.image_size):
        return EVALUATION_BATCH
    return max(1, min(EVALUATION_BATCH, _PIXELS // math.prod(data.image_size)))


def predictor(method: Method, data: Data) -> Predict:
    """Return a function to the measured answers of a method: its predictions, or the embeddings of its networks."""
    if data.task.measures == "answer":
        return method
    # From the networks that ship, because a method's predictions are answers, and embeddings lie before those.
    shipped = {DEPLOYED: method.export(), **method.members()}
    asked = {name: _asker(network, data) for name, network in shipped.items()}
    return lambda inputs: {name: ask(inputs)[0] for name, ask in asked.items()}


def taught_by(method: Method, data: Data) -> Callable[[Any], Tensor] | None:
    """Return a function from inputs to the answer of a method's teacher; None if there is nothing to compare with.

    Args:
        method: The method. Of several teachers, or one that is no network, none is asked.
        data: The data, whose task says whether answers are compared with a teacher's.
    """
    teachers = list(teachers_in(method)) if data.task.compares_with_teacher else []
    network = teachers[0].as_network() if len(teachers) == 1 else None
    if network is None:
        return None
    ask = _asker(network, data)
    return lambda inputs: ask(inputs)[0]


def _asker(network: nn.Module, data: Data) -> Callable[[Any], tuple[Tensor, Tensor | None]]:
    """Return a function from inputs to the measured answer and, of an ensemble, the members' answers (else None)."""
    if isinstance(network, Ensemble):
        return lambda inputs: _agreed([answer(member, inputs).float() for member in network.networks], data)
    if data.task.measures == "embedding" and (reader := _embedding_reader(network, data)) is not None:
        return lambda inputs: (reader(inputs).features[EMBEDDING].flatten(1), None)
    return lambda inputs: (answer(network, inputs), None)


def _agreed(answers: Sequence[Tensor], data: Data) -> tuple[Tensor, Tensor]:
    """Return the joint answer of several networks, and the answer of each."""
    shapes = [tuple(answer.shape[1:]) for answer in answers]
    if len(set(shapes)) > 1:
        raise UserError(f"The members of an ensemble must agree on the classes; they return the shapes {shapes}.")
    # The task decides how answers are averaged: probabilities of classes, but the numbers of a regression themselves.
    members = torch.stack(list(answers))
    return data.task.criterion.mean(members), members


def _embedding_reader(network: nn.Module, data: Data) -> FeatureExtractor | None:
    """Return an extractor of the input of a network's classifier; None if it has no classifier."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        return FeatureExtractor(network, (EMBEDDING,), example=data.example(2).to(device), logits=False)
    except UserError:
        # Without a classifier, a network's answer is itself its embedding.
        return None


def _in_order(data: Data, split: str, device: Any) -> Loader:
    return data.loader(split, train=False, batch_size=batch_for(data), device=device)


def measuring_loader(data: Data, split: str, device: Any) -> Loader:
    """Return the batches in which a split is measured; texts come in batches of like lengths.

    Args:
        data: The data.
        split: The split's name.
        device: The device of the batches.
    """
    samples, size = data.split(split), batch_for(data)
    lengths = samples.lengths if isinstance(samples, Samples) else None
    sampler = None if lengths is None else BoundedBatches(lengths, batch_size=size, tokens=_AT_ONCE)
    return data.loader(split, train=False, batch_size=size, device=device, batch_sampler=sampler)


def _answered(predict: Predict, loader: Loader, autocast: Autocast) -> Iterator[tuple[Batch, Mapping[str, Tensor]]]:
    # Whole runs of batches, not every n-th one: joined in order, they are the pass of a single process.
    part = processes.part(len(loader))
    for batch in islice(loader.epoch(0, part.start), len(part)):
        with autocast():
            answers = predict(batch.inputs)
        yield batch, answers


@contextmanager
def _placed(network: nn.Module, device: str) -> Iterator[None]:
    # Moved back afterwards, so that a measured network does not stay in the device's memory.
    network.to(device)
    try:
        yield
    finally:
        network.to("cpu")
