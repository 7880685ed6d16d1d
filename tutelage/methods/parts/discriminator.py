"""KSANC's discriminator of logits, its losses, and the student's loss against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.features.adapting import taken_by
from tutelage.losses import cross_entropy, wide

Adversarial = Literal["non-saturating", "minimax"]
# With the usual 1e-5, four batch norms would multiply the gradients of a batch of equal logits by ten billion.
_EPS = 1e-2


class Judgement(NamedTuple):
    """A discriminator's answer to a batch of logits.

    Attributes:
        real: Log-odds that the logits are the teacher's, `[batch]`.
        classes: The discriminator's own logits of the classes, `[batch, class]`.
    """

    real: Tensor
    classes: Tensor


class Discriminator(nn.Module):
    """Tells the teacher's logits from the student's, and names the class. It stays in float32 under autocast.

    Each batch is normalised by itself, so pass the logits of the teacher and of the student separately.

    Args:
        num_classes: Number of classes.
        hidden: Widths of the hidden layers, each with batch norm and ReLU.
    """

    def __init__(self, num_classes: int, hidden: Sequence[int] = (128, 256, 128)) -> None:
        super().__init__()
        # Logits may have any scale, and the first norm takes it away.
        layers: list[nn.Module] = [nn.BatchNorm1d(num_classes, eps=_EPS)]
        for width, following in pairwise((num_classes, *hidden)):
            layers += [nn.Linear(width, following, bias=False), nn.BatchNorm1d(following, eps=_EPS), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1 + num_classes))

    def forward(self, logits: Tensor) -> Judgement:
        """Return its judgement of logits `[batch, class]`."""
        # Statistics of one sample have no variance; the error of torch would not name ksanc.
        if self.training and len(logits) < 2:
            raise UserError("ksanc needs two samples or more in a batch: its discriminator normalises over the batch.")
        with torch.autocast(logits.device.type, enabled=False):
            said = self.layers(taken_by(self, wide(logits)))
        return Judgement(said[:, 0], said[:, 1:])

    def weights(self) -> Iterable[Tensor]:
        """Return the weights to regularise: those of the linear layers, without biases and batch norms."""
        return [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]


def fooling_loss(real: Tensor, *, adversarial: Adversarial = "non-saturating") -> Tensor:
    r"""Return the loss that the student minimises to pass for the teacher, the mean over the batch.

    $-\log D(l_S)$ (`non-saturating`), or $\log(1 - D(l_S))$ (`minimax`), which hardly has a gradient where $D$ is sure.

    Args:
        real: Log-odds that the student's logits are the teacher's, `[batch]`.
        adversarial: Which of the two losses.
    """
    return -F.logsigmoid(real).mean() if adversarial == "non-saturating" else F.logsigmoid(-real).mean()


def telling_losses(teacher: Judgement, student: Judgement, labels: Tensor) -> dict[str, Tensor]:
    r"""Return the losses that the discriminator minimises, each the mean over the batch.

    `real` is $-\log D(l_T)$, `fake` is $-\log(1 - D(l_S))$, `classes` is $-\log P(y|C_T) - \log P(y|C_S)$, and
    `leniency` is $-\log D(l_S)$, which keeps the discriminator from winning.

    Args:
        teacher: Its judgement of the teacher's logits.
        student: Its judgement of the student's logits.
        labels: Class indices, `[batch]`.
    """
    # 1 - D is the sigmoid of minus the log-odds, so that no logarithm of zero is taken.
    return {
        "real": -F.logsigmoid(teacher.real).mean(),
        "fake": -F.logsigmoid(-student.real).mean(),
        "classes": cross_entropy(teacher.classes, labels) + cross_entropy(student.classes, labels),
        "leniency": -F.logsigmoid(student.real).mean(),
    }


def norms(weights: Iterable[Tensor]) -> Tensor:
    r"""Return $|\omega|_1 + \|\omega\|_2^2$ of all weights together, a scalar."""
    return torch.stack([weight.abs().sum() + weight.square().sum() for weight in weights]).sum()
