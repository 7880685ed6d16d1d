"""How large the terms of a loss are, and how hard each pulls at the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, Progress
from tutelage.data.batch import Batch

FAR = 20.0
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the loss on a batch.

    Attributes:
        name: Its name.
        optimizer: Whose loss it is part of.
        value: Its value before its weight.
        weight: Its weight halfway through the run.
        pull: Norm of the gradient of the weighted term with respect to what its optimizer trains.
        raw_pull: The same before its weight.
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
        weak: The one that pulls less hard.
        strong: The one that pulls hardest.
        ratio: How many times harder.
        weighted: Whether that is with their weights, or before them.
    """

    weak: Term
    strong: Term
    ratio: float
    weighted: bool


def far_apart(terms: Sequence[Term]) -> Iterator[Gap]:
    """Yield each term that pulls far less hard than the strongest of its update.

    Either with the weights, or before them: weights that hide the wrong scale of a term fit no other setting. A weight
    of zero is a decision, and does not count.

    Args:
        terms: Terms as measured.
    """
    weighed = [term for term in terms if term.weight != 0]
    for optimizer in dict.fromkeys(term.optimizer for term in weighed):
        mine = [term for term in weighed if term.optimizer == optimizer]
        strong, strong_raw = max(mine, key=lambda term: term.pull), max(mine, key=lambda term: term.raw_pull)
        for term in mine:
            if term.pull * FAR < strong.pull:
                yield Gap(term, strong, strong.pull / max(term.pull, TINY), weighted=True)
            elif term.raw_pull * FAR < strong_raw.raw_pull:
                yield Gap(term, strong_raw, strong_raw.raw_pull / max(term.raw_pull, TINY), weighted=False)


def _watched(method: Method, params: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
    """Return the student's part of what an optimizer trains, if it has one: terms share the student, not adapters."""
    student = getattr(method, "student", None)
    own = {id(parameter) for parameter in student.parameters()} if isinstance(student, nn.Module) else set()
    return [parameter for parameter in params if id(parameter) in own] or params


def _gradient_norm(loss: Tensor, params: Sequence[nn.Parameter]) -> float:
    if not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    norms = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0
