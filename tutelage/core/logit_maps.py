"""Two networks' maps of logits, at the stride at which they are computed, and with them layers of a method's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.pairing import LayerPair
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch, Output
from tutelage.errors import NoLayersError
from tutelage.features.extractor import FeatureExtractor
from tutelage.features.logit_map import logit_map
from tutelage.features.maps import pool_to_smaller
from tutelage.features.trace import Trace
from tutelage.losses import wide
from tutelage.models.answers import at_size


@dataclass(frozen=True)
class LogitMaps:
    """Where the maps of logits are read.

    Attributes:
        student: The student's layer; None reads its answer, at the size of the images.
        teacher: The teacher's layer; None reads its answer.
    """

    student: str | None
    teacher: str | None

    def of(self, student: Output, teacher: Output) -> tuple[Tensor, Tensor]:
        """Return both maps of logits `[batch, class, height, width]`, the larger pooled to the size of the smaller."""
        one = student.logits if self.student is None else student.features[self.student]
        other = teacher.logits if self.teacher is None else teacher.features[self.teacher]
        if one.shape[2:] == other.shape[2:]:
            return one, other
        return pool_to_smaller(wide(one), wide(other))


def reading_logit_maps(
    student: nn.Module, teacher: Teacher, example: Any, pairs: Sequence[LayerPair] = ()
) -> tuple[FeatureExtractor, Teacher, LogitMaps]:
    """Return a student and a teacher that read their maps of logits, and the layers of some pairs.

    Args:
        student: The network to train.
        teacher: The teacher. If its layers cannot be read, its answers are.
        example: Inputs for one forward pass.
        pairs: Pairs of layers to read as well.
    """
    trace = Trace.of(student, example)
    found = LogitMaps(logit_map(student, trace), _of_teacher(teacher, example))
    ours = dict.fromkeys([*(pair.student.layer for pair in pairs), *_some(found.student)])
    theirs = dict.fromkeys([*(pair.teacher.layer for pair in pairs), *_some(found.teacher)])
    reader = FeatureExtractor(student, list(ours), example=trace)
    return reader, teacher.reading(list(theirs), example=example) if theirs else teacher, found


def _of_teacher(teacher: Teacher, example: Any) -> str | None:
    """Return the teacher's layer of logits; None if its answers are other than what a network in it computes."""
    try:
        network = teacher.inner_network()
    except NoLayersError:
        return None
    trace = Trace.of(network, example)
    layer = logit_map(network, trace)
    if layer is None:
        return None
    # A teacher may answer with the network's classes in another order, or fewer: then the layer is not its answer.
    inner, said = trace.logits, teacher(Batch(inputs=example)).logits
    same = said.shape[1] == inner.shape[1] and torch.allclose(
        at_size(inner, (said.shape[2], said.shape[3])), said, rtol=1e-3, atol=1e-4
    )
    return layer if same else None


def _some(layer: str | None) -> list[str]:
    return [] if layer is None else [layer]
