"""Fickle teacher: dropout in the teacher of any other method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tutelage.core.registry import register
from tutelage.core.teachers import EnsembleTeacher, FrozenTeacher, Teacher
from tutelage.errors import NoLayersError, UserError
from tutelage.features.anatomy import classifier
from tutelage.methods.parts.papers import ARANI
from tutelage.models.answers import uncompiled
from tutelage.models.copies import copy_of
from tutelage.models.dropout import ActiveDropout, kind_of_dropout
from tutelage.models.normalization import bare

# The rate for a teacher without dropout: the one that the paper found best.
_RATE = 0.4


@register(
    "fickle-teacher",
    papers=[ARANI],
    reads=(),
    exceptions={
        "parts-of-a-batch-add-up": "the masks of a part are drawn anew",
        "accepts-other-teachers": "a recorded answer is always the same, and only a network drops anew",
    },
)
def fickle_teacher(
    distill: Callable[..., nn.Module],
    teacher: Teacher,
    example: Any,
    *,
    method: str = "kd",
    rate: float | None = None,
) -> nn.Module:
    r"""Fickle teacher: any method, taught by a teacher whose dropout stays on, with fresh masks at every step.

    $$ p^t = \mathrm{softmax}(f_t(x; m) / T), \quad m \sim \mathrm{Bernoulli}(1 - r) / (1 - r) $$

    The student sees the teacher's doubt: over the steps its target for an image is not one answer but a distribution of
    them. A copy of the teacher's network is taken; in it each dropout layer goes on dropping, while batch norm keeps
    its statistics. Methods that read layers read those of the copy. The teacher should have been trained with dropout,
    as `wrn_40_2,dropout=0.4` is. A network that has none gets one in front of its classifier. This has no effect on a
    method such as `at`, which reads only layers before it.

    Args:
        distill: Runs the method.
        teacher: A teacher with a network inside; of an ensemble, each member becomes fickle.
        example: Inputs for one forward pass, which find the classifier.
        method: The method that learns from it, with options of its own: `at`, or `(kd:temperature=8,alpha=0.5)`.
        rate: $r$ for every dropout, from 0 (a teacher that is not fickle) to below 1. By default each layer keeps the
            one it has, and 0.4 is taken where a layer is put in.

    Raises:
        UserError: If the rate is out of its range, the method does not learn from a trained teacher, the teacher gives
            only logits, or it has neither dropout nor a classifier that can be found.

    Paper: Arani, Sarfraz, Zonooz, Noise as a Resource for Learning in Knowledge Distillation, WACV 2021.

    Differences: No code of the authors was found, and not all of the paper: that 0.4 is the best rate, for teacher
        training as well, is taken from summaries. Dropout in front of the classifier of a teacher that had none is
        ours. Dropout that a network applies by a function rather than a layer is not found, and stays off.
    """
    if rate is not None and not 0 <= rate < 1:
        raise UserError(f"rate={rate} must be at least 0 and below 1: it is the share that dropout drops.")
    return distill(method, teacher=fickle(teacher, example, rate))


def fickle(teacher: Teacher, example: Any, rate: float | None = None) -> Teacher:
    """Return a teacher on a copy of the network whose dropout stays on in eval mode; of an ensemble, each member.

    Args:
        teacher: The teacher; it stays as it is.
        example: Inputs for one forward pass.
        rate: Probability of dropping, for every dropout layer; None keeps each layer's own.

    Raises:
        UserError: If there is no network, or no place for dropout in it.
    """
    if isinstance(teacher, EnsembleTeacher):
        members = [one for one in teacher.teachers if isinstance(one, Teacher)]
        return teacher.with_members([fickle(one, example, rate) for one in members])
    try:
        # A copy, so that the given teacher does not begin to drop.
        network = copy_of(uncompiled(teacher.inner_network()))
    except NoLayersError as error:
        text = f"A {type(teacher).__name__} gives only logits, so it has no dropout: pass the network itself."
        raise NoLayersError(text) from error
    # At rate 0 nothing would drop, so no layer is replaced.
    if rate != 0:
        _make_fickle(network, example, rate)
    return FrozenTeacher(network)


def _make_fickle(network: nn.Module, example: Any, rate: float | None) -> None:
    # A layer that the network holds under several names must be replaced under each of them.
    layers = dict(network.named_modules(remove_duplicate=False))
    kinds = {name: kind for name, layer in layers.items() if (kind := kind_of_dropout(layer)) is not None}
    for name, kind in kinds.items():
        own: Any = layers[name]
        network.set_submodule(name, ActiveDropout(own.p if rate is None else rate, kind))
    if kinds:
        return
    try:
        name = classifier(network, example)
    except UserError as error:
        raise UserError(f"The teacher has no dropout, and no place for it was found. {error}") from error
    if not name:
        raise UserError("The teacher is a single layer, so dropout has no place in it. Choose another teacher.")
    # The classifier's name counts from the network inside the normalisation.
    inner = bare(network)
    inner.set_submodule(name, nn.Sequential(ActiveDropout(_RATE if rate is None else rate), inner.get_submodule(name)))
