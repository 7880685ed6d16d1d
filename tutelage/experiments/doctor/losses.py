"""The sizes of a loss's terms, and the pull of each on the student: the norm of its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, Progress
from tutelage.data.batch import Batch

# How many times one term must outweigh another to be told, and what stands for a pull of zero.
FAR = 20.0
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the loss on a batch.

    Attributes:
        name: Its name.
        optimizer: The optimizer that minimises it.
        value: Its value before its weight.
        weight: Its weight halfway through the run.
        pull: Norm of the weighted term's gradient with respect to the student's parameters that its optimizer trains.
        raw_pull: Norm of the same gradient, without the weight.
    """

    name: str
    optimizer: str
    value: float
    weight: float
    pull: float
    raw_pull: float


def measure_terms(method: Method, batch: Batch, *, total_steps: int, epochs: int) -> list[Term]:
    """Return the terms of all updates on a batch, with the weights that hold halfway through the run.

    Args:
        method: The method; no optimizer steps.
        batch: A training batch on the method's device.
        total_steps: Batches of the whole run.
        epochs: Epochs of the whole run.
    """
    # Halfway: at the start, weights that rise would still be zero.
    progress = Progress(step=total_steps // 2, total_steps=total_steps, epoch=epochs // 2)
    specs = method.optimizers()
    method.train()
    terms = []
    for update in method.step(batch, progress):
        params = _watched(method, specs[update.optimizer].params)
        for name, loss in update.losses.items():
            weight, pull = method.weight(name, progress), _gradient_norm(loss, params)
            terms.append(
                Term(
                    name=name,
                    optimizer=update.optimizer,
                    value=float(loss.detach()),
                    weight=weight,
                    pull=abs(weight) * pull,
                    raw_pull=pull,
                )
            )
    return terms


@dataclass(frozen=True)
class Gap:
    """Two terms that pull very unequally.

    Attributes:
        weak: The term with the smaller pull.
        strong: The term with the largest pull.
        ratio: The larger pull divided by the smaller one.
        weighted: Whether the pulls include the terms' weights.
    """

    weak: Term
    strong: Term
    ratio: float
    weighted: bool


def far_apart(terms: Sequence[Term]) -> Iterator[Gap]:
    """Yield each term that pulls far less than the strongest term of the same optimizer.

    Pulls are compared with the weights and, if those agree, without them: a weight that only corrects the scale of a
    term fits no other setting. Terms of weight zero are left out, because the user wants them so.

    Args:
        terms: The measured terms.
    """
    weighed = [term for term in terms if term.weight != 0]
    # Terms of different optimizers do not compete.
    for optimizer in dict.fromkeys(term.optimizer for term in weighed):
        mine = [term for term in weighed if term.optimizer == optimizer]
        strong, strong_raw = max(mine, key=lambda term: term.pull), max(mine, key=lambda term: term.raw_pull)
        for term in mine:
            if term.pull * FAR < strong.pull:
                yield Gap(term, strong, strong.pull / max(term.pull, TINY), weighted=True)
            elif term.raw_pull * FAR < strong_raw.raw_pull:
                yield Gap(term, strong_raw, strong_raw.raw_pull / max(term.raw_pull, TINY), weighted=False)


def _watched(method: Method, params: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
    """Return an optimizer's parameters that belong to the student, else all: terms share the student, not adapters."""
    student = getattr(method, "student", None)
    own = {id(parameter) for parameter in student.parameters()} if isinstance(student, nn.Module) else set()
    return [parameter for parameter in params if id(parameter) in own] or params


def _gradient_norm(loss: Tensor, params: Sequence[nn.Parameter]) -> float:
    if not loss.requires_grad:
        return 0.0
    # The terms of an update share their graph.
    gradients = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    norms = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
