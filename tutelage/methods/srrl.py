"""SRRL: the teacher's own classifier reads the student's representation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, Seen, reading, taps
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.features.adapting import adapting, in_one_type
from tutelage.features.anatomy import EMBEDDING, classified, classifier_copy
from tutelage.features.extractor import value_at
from tutelage.features.padding import mean_over_places, through
from tutelage.losses import wide

SRRL_PAPER = Paper(
    key="yang2021knowledge",
    title="Knowledge Distillation via Softmax Regression Representation Learning",
    authors="Yang, Jing and Martinez, Brais and Bulat, Adrian and Tzimiropoulos, Georgios",
    venue="International Conference on Learning Representations",
    year=2021,
)

Variant = Literal["map", "vector"]


@register(
    "srrl",
    papers=[SRRL_PAPER],
    losses=["feature_matching", "softmax_regression"],
    reads={"answers", "sample-answers"},
    uses={"targets"},
    family="features",
)
class SRRL(Method):
    r"""SRRL: the teacher's classifier answers the student's last map, through a connector, as it answers the teacher's.

    $$ L = H(q, p) + \alpha L_{FM} + \beta L_{SR}, \qquad L_{FM} = \|h_t - h_s\|^2 / D, \qquad
    L_{SR} = \|W_t h_t - W_t h_s\|^2 / K $$

    $h_t$ is the teacher's embedding (the input of its classifier $W_t$), $h_s$ the mean over the places of the
    connector's map. Both terms are means over the batch. Gradients flow through $W_t$, which stays as it is.
    Without labels the first term is left out: the student learns features, and its classifier stays as it is.

    Args:
        student: The network to train.
        teacher: A network whose classifier can be found.
        example: Inputs for one forward pass, from which layers and shapes are known.
        alpha: Weight of feature matching, $L_{FM}$.
        beta: Weight of softmax regression, $L_{SR}$.
        variant: `map` applies the connector (1x1 convolution, batch norm, ReLU) to the student's map and then takes the
            mean, as the authors do; `vector` takes the mean first, as another group's re-implementation does.
        layer: The student's layer that is read; `auto` is the map whose mean its own classifier reads, or, where there
            is none, the classifier's input as a map of one place.

    Raises:
        UserError: If the teacher gives only logits, a classifier cannot be found, or the layer does not exist.

    Paper: Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, ICLR 2021.

    Differences: The authors' released script cannot run; this is the loss that it means, with the squared distance of
        the logits that the paper prefers to its cross-entropy. The connector's ReLU is left out where the teacher's
        embedding has negative values on the example (transformers), since it could never reach them. The teacher may
        be any network with a linear classifier: what is read is the classifier's own input, so that a normalisation
        before the pooling, or a convolution, is never skipped.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        variant: Variant = "map",
        layer: str = AUTO,
    ) -> None:
        super().__init__({"feature_matching": alpha, "softmax_regression": beta})
        network = teacher.inner_network()
        seen = Seen.of(student, teacher, example)
        mine = seen.student
        ours = classified(student, mine) if layer == AUTO else taps(student, [layer], mine, who="student")[layer]
        theirs = taps(network, [EMBEDDING], seen.teacher, who="teacher")[EMBEDDING]
        pairs = [LayerPair(ours, theirs)]
        self.student, self.teacher, self.pairs = reading(student, teacher, pairs, seen, logits=False)
        self.classifier = classifier_copy(network, seen.teacher)
        # A ReLU could never reach negative values of the teacher's embedding.
        reaches = bool((value_at(seen.teacher, EMBEDDING) >= 0).all())
        self.connector = adapting(connector(ours.channels, theirs.channels, relu=reaches), student)
        self.variant = variant

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy as `ce`, and the two terms as `feature_matching` and `softmax_regression`."""
        student, teacher = self.student(batch.inputs), self.teacher(batch)
        ours, theirs = self.pairs[0].maps(student, teacher)
        mask, _ = self.pairs[0].masks(student, teacher)
        if self.variant == "vector":
            # What is left is one place a sample, and none of it is padding.
            ours, mask = mean_over_places(ours, mask)[:, :, None, None], None
        embedding, target = mean_over_places(through(self.connector, ours, mask), mask), theirs.flatten(1)
        return {
            **batch.supervised(student.logits),
            "feature_matching": feature_matching(embedding, target),
            "softmax_regression": softmax_regression(embedding, target, self.classifier.weight),
        }


def feature_matching(embedding: Tensor, target: Tensor) -> Tensor:
    r"""Return $\|h_t - h_s\|^2 / D$, the mean over the batch.

    Args:
        embedding: The student's, `[batch, channel]`, at the teacher's width.
        target: The teacher's, `[batch, channel]`; no gradient flows into it.
    """
    return F.mse_loss(*in_one_type(embedding, target.detach()))


def softmax_regression(embedding: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    r"""Return $\|W_t h_t - W_t h_s\|^2 / K$, the mean over the batch; the classifier's bias cancels.

    Args:
        embedding: The student's, `[batch, channel]`, at the teacher's width.
        target: The teacher's, `[batch, channel]`.
        weight: $W_t$, the weight of the teacher's classifier, `[class, channel]`.
    """
    # The bias cancels in the difference, so the weights are enough.
    with torch.autocast(embedding.device.type, enabled=False):
        difference = wide(embedding) - wide(target)
        return F.linear(difference, weight.to(difference.dtype)).square().mean()


def connector(student_channels: int, teacher_channels: int, *, relu: bool = True) -> nn.Sequential:
    """Return the 1x1 convolution, batch norm and ReLU that bring the student's map to the teacher's width."""
    convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    layers = [convolution, nn.BatchNorm2d(teacher_channels)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)
