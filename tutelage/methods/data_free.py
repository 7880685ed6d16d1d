"""Data-free distillation: the student learns from images that were made from the teacher, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.core.method import Method
from tutelage.core.pairing import AUTO, LayerPair, pair, reading
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import NoLayersError, UserError
from tutelage.features.adapting import in_one_type
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import Reduction, kd_loss, wide
from tutelage.system.console import Reporter

KNOWLEDGE_WITHIN = Paper(
    key="haroush2020knowledge",
    title="The Knowledge Within: Methods for Data-Free Model Compression",
    authors="Haroush, Matan and Hubara, Itay and Hoffer, Elad and Soudry, Daniel",
    venue="Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    year=2020,
    arxiv="1912.01274",
)


@register(
    "data-free",
    papers=[KNOWLEDGE_WITHIN],
    losses=["kd_loss", "auxiliary_loss"],
    reads={"images", "classes"},
    family="logits",
    exceptions={
        "accepts-other-teachers": "a recorded answer belongs to one image, and the teacher is asked about two in one",
        "parts-of-a-batch-add-up": "images are mixed with others of the batch",
    },
)
class DataFree(Method):
    r"""Data-free distillation: the student learns the teacher's answers to mixtures of images that were made from it.

    $$ L = T^2 \, \mathrm{KL}\big(p^t_T(\tilde x) \,\|\, p^s_T(\tilde x)\big) + \gamma \sum_{k=0}^{n-1}
       \frac{2 (k + 1)}{n^2 + n} \, \mathrm{SmoothL1}\big(F^s_k(\tilde x), F^t_k(\tilde x)\big), \qquad
       \tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}, \quad \lambda_i \sim \mathrm{Beta}(a, a) $$

    No label is read. The images come from `tutelage synthesize`, which makes them from the teacher alone, or are any
    others; real ones are only reported on, which `--test-data` names:

    `tutelage synthesize --teacher runs/teacher --per-class 100 --out runs/synthetic`, then
    `tutelage distill data-free --teacher runs/teacher --student resnet8 --data runs/synthetic --test-data cifar10`.

    Every image has a share of its own, and the teacher answers the mixture itself. The second term compares outputs
    of the layers where student and teacher have the same shape, the deeper ones more; where no shapes agree there is
    none. A student that starts from its teacher's weights has all of them. If it learns from Gaussian noise, its
    batch norms must not adapt to it: `statistics=frozen`.

    Args:
        student: The network to train.
        teacher: Any live teacher that gives logits; it is asked about the mixtures.
        example: Inputs for one forward pass.
        reporter: Receives a note about layers that are not compared.
        temperature: $T$, above zero.
        mixup: $a$ of the Beta distribution, above zero; 0 mixes nothing.
        auxiliary: $\gamma$, zero or more.
        layers: `auto` pairs the ends of the stages whose shapes agree; or pairs by name, `student:teacher`, joined by
            `+`.
        statistics: Whether batch norms of the student normalise by the `batch`, or by their `frozen` statistics, as
            Gaussian images need it.
        reduction: `batchmean`, or `mean` to divide the first term by the number of classes, as the authors' code does.

    Raises:
        UserError: If a number is out of its range, the inputs are not images, the teacher's answers are recorded, or
            the shapes of named layers differ.

    Paper: Haroush, Hubara, Hoffer, Soudry, The Knowledge Within: Methods for Data-Free Model Compression, CVPR 2020.

    Differences: The authors' code divides the KL divergence by the number of classes as well, which is
        `reduction=mean`, and makes up for it with a larger learning rate. It compares the outputs of all parts of the
        network at its top level but the last; here they are the ends of the stages. Their students are the teacher
        itself with few bits; any student can learn here.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Any,
        reporter: Reporter | None = None,
        *,
        temperature: float = 1.0,
        mixup: float = 0.5,
        auxiliary: float = 0.01,
        layers: str = AUTO,
        statistics: Literal["batch", "frozen"] = "batch",
        reduction: Reduction = "batchmean",
    ) -> None:
        _check(temperature, mixup, auxiliary)
        if mixup:
            teacher.must_be_live("data-free asks the teacher about mixtures of images")
        super().__init__()
        self.student, self.teacher = FeatureExtractor(student), teacher
        if auxiliary:
            self._compare(student, teacher, layers, example, reporter)
        if self.pairs:
            self.weights = {"auxiliary": auxiliary}
        self.temperature, self.mixup, self.reduction = temperature, mixup, reduction
        self.statistics = statistics

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the soft term as `kd`, and the distance of the layers as `auxiliary` where any are compared."""
        mixed = self._mixed(batch)
        student, teacher = self.student(mixed.inputs), self.teacher(mixed)
        soft = kd_loss(student.logits, teacher.logits, self.temperature, reduction=self.reduction)
        if not self.pairs:
            return {"kd": soft}
        maps = [pair.maps(student, teacher) for pair in self.pairs]
        return {"kd": soft, "auxiliary": auxiliary_loss(maps)}

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the student's batch norms stay in eval mode if their statistics are frozen."""
        super().train(mode)
        if mode and self.statistics == "frozen":
            for layer in self.student.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def _mixed(self, batch: Batch) -> Batch:
        images = batch.inputs
        if not (isinstance(images, Tensor) and images.is_floating_point()):
            raise UserError(
                "data-free mixes images, which are tensors of floats: for other inputs, choose a method such as kd."
            )
        if not self.mixup:
            return batch
        share = torch.distributions.Beta(self.mixup, self.mixup).sample((len(images),)).to(images.device)
        partner = torch.randperm(len(images), device=images.device)
        asked = None if batch.teacher_inputs is None else mix(batch.teacher_inputs, partner, share)
        # Nothing else of the batch is passed on: it belongs to single images, and a mixture is none of them.
        return Batch(inputs=mix(images, partner, share), teacher_inputs=asked)

    def _compare(
        self, student: nn.Module, teacher: Teacher, layers: str, example: Any, reporter: Reporter | None
    ) -> None:
        """Let both networks read the layers whose shapes agree."""
        try:
            found = pair(student, teacher, layers, example)
        except NoLayersError:
            _tell(reporter, "the teacher gives only logits")
            return
        same = tuple(one for one in found.pairs if _is_alike(one))
        if len(same) < len(found.pairs) and layers != AUTO:
            raise UserError(
                f"The layers {next(one for one in found.pairs if one not in same)} differ in shape, and data-free "
                "compares them number by number: name others in layers=, or leave them out with auxiliary=0."
            )
        found.student.release()
        found.teacher.release()
        if same:
            self.student, self.teacher, self.pairs = reading(student, teacher, same, example)
        else:
            _tell(reporter, "no stage of the student has the shape of the teacher's")


def mix(images: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    r"""Return $\lambda_i x_i + (1 - \lambda_i) x_{\pi(i)}$, computed in float32, in the images' dtype.

    Args:
        images: $x$, `[batch, ...]`, floats.
        partner: $\pi$, `[batch]`.
        share: $\lambda$, `[batch]`, from 0 to 1.
    """
    one, other = wide(images), wide(images[partner])
    return torch.lerp(other, one, share.to(one.dtype).view(-1, *[1] * (images.ndim - 1))).to(images.dtype)


def auxiliary_loss(maps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    r"""Return $\sum_k \frac{2 (k + 1)}{n^2 + n} \mathrm{SmoothL1}(F^s_k, F^t_k)$; the weights add up to 1.

    Args:
        maps: For each layer, from the first to the last, the student's and the teacher's output, of one shape. No
            gradient flows into the teacher's.
    """
    terms = [F.smooth_l1_loss(*in_one_type(ours, theirs.detach())) for ours, theirs in maps]
    count = len(terms)
    weighted = [2 * (k + 1) / (count**2 + count) * term for k, term in enumerate(terms)]
    return torch.stack(weighted).sum()


def _is_alike(one: LayerPair) -> bool:
    return (one.student.channels, one.student.size) == (one.teacher.channels, one.teacher.size)


def _tell(reporter: Reporter | None, why: str) -> None:
    if reporter is not None:
        reporter.note(f"data-free compares no layers: {why}.", once=True)


def _check(temperature: float, mixup: float, auxiliary: float) -> None:
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be above zero.")
    for name, value in (("mixup", mixup), ("auxiliary", auxiliary)):
        if not value >= 0:
            raise UserError(f"{name}={value} must be zero or more.")
