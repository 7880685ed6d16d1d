"""CS-KD: a network's answer to one sample matches its answer to another of the same class."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tutelage.core.method import Method, TransferSet
from tutelage.core.registry import Paper, register
from tutelage.data.batch import Batch
from tutelage.data.samplers import PairBatches
from tutelage.data.samples import Samples
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import cross_entropy, kd_loss
from tutelage.methods.parts.labels import all_labelled
from tutelage.models.modes import keeping_statistics

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples

YUN = Paper(
    key="yun2020regularizing",
    title="Regularizing Class-wise Predictions via Self-knowledge Distillation",
    authors="Yun, Sukmin and Park, Jongjin and Lee, Kimin and Shin, Jinwoo",
    venue="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    year=2020,
    arxiv="2003.13964",
)


@register("cs-kd", papers=[YUN], losses=["kd_loss"], reads={"classes", "sample-labels"}, family="self")
class CSKD(Method):
    r"""Class-wise self-distillation: a network's answer to a sample matches its answer to another of the same class.

    $$ L = \frac{1}{B} \sum_{b=1}^B \big[ H(y_b, p(x_b)) + \lambda T^2 \, \mathrm{KL}(p_T(x'_b) \| p_T(x_b)) \big] $$

    $x'_b$ is the partner of the anchor $x_b$: any training sample of its class, drawn anew in each epoch, perhaps the
    anchor itself. The network answers both in train mode, one after the other, so that batch norm normalises each by
    samples of its kind. No gradient flows through the answer to the partner.

    A batch holds `batch_size` anchors and as many partners, twice the images of another method's.

    Args:
        student: The network to train.
        batch_size: Anchors in a batch.
        temperature: $T$, which softens both, above zero.
        weight: $\lambda$, zero or more. The weight of the cross-entropy is 1.
        partner_statistics: Whether the running statistics of batch norm are `kept` while the partners are answered, so
            that they move once a step, with the anchors, as in any other training; or `updated` by both.

    Raises:
        UserError: If a number is out of its range, the data are a DataLoader, or a batch has an odd number of samples.

    Paper: Yun et al., Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020.

    Differences: In the authors' code the partners move the running statistics too, which then are means over half as
        many steps: `partner_statistics="updated"`. Their learning rate falls one epoch after the paper's 50 and 75 %;
        the preset has the paper's. A last batch of one anchor is left out, and by several processes any last batch that
        is smaller.
    """

    def __init__(
        self,
        student: nn.Module,
        batch_size: int = 128,
        *,
        temperature: float = 4.0,
        weight: float = 1.0,
        partner_statistics: Literal["kept", "updated"] = "kept",
    ) -> None:
        if not temperature > 0:
            raise UserError(f"temperature={temperature} must be above zero.")
        if not weight >= 0:
            raise UserError(f"weight={weight} must be zero or more.")
        super().__init__({"class_wise": weight})
        self.student, self.batch_size = FeatureExtractor(student), batch_size
        self.temperature, self.partner_statistics = temperature, partner_statistics

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data in batches of anchors and their partners."""
        if isinstance(dataset, DataLoader):
            raise UserError(
                "cs-kd pairs each training sample with another of its class, so it forms the batches itself: pass the "
                "dataset instead of a DataLoader."
            )
        # Processes share every batch evenly, so a smaller last one is dropped.
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        assert isinstance(dataset, Samples)
        if dataset.targets is None:
            raise UserError(
                "cs-kd pairs samples of one class, and these samples have no labels: choose another method."
            )
        targets = all_labelled(dataset.targets, "cs-kd")
        batches = PairBatches(targets, batch_size=self.batch_size, drop_last=several)
        # Two sections: processes share the anchors, and their partners in the same way, so that pairs stay together.
        return TransferSet(dataset, batches, sections=2)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the anchors' cross-entropy as `ce`, and the divergence from their partners as `class_wise`.

        Args:
            batch: The anchors, then a partner of the same class for each.

        Raises:
            UserError: If the number of samples is odd.
        """
        # A partner has its anchor's label.
        labels, _ = halves(batch.labels)
        anchors, partners = halves(batch.inputs)
        # Two passes instead of one over both halves, so that batch norm normalises each half by itself.
        answers = self.student(anchors).logits
        keeps = self.partner_statistics == "kept"
        with torch.no_grad(), keeping_statistics(self.student) if keeps else nullcontext():
            others = self.student(partners).logits
        return {"ce": cross_entropy(answers, labels), "class_wise": kd_loss(answers, others, self.temperature)}


def halves(samples: Any) -> tuple[Any, Any]:
    """Return the first and the second half of a batch's samples.

    Args:
        samples: A tensor `[batch, ...]`, or a mapping or sequence of such tensors.

    Raises:
        UserError: If the number of samples is odd.
    """
    # Inputs with names, such as the tokens and the mask of texts.
    if isinstance(samples, Mapping):
        pairs = {name: halves(tensor) for name, tensor in samples.items()}
        return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}
    if not isinstance(samples, Tensor):
        both = [halves(tensor) for tensor in samples]
        return [pair[0] for pair in both], [pair[1] for pair in both]
    if len(samples) % 2:
        raise UserError(
            f"cs-kd got a batch of {len(samples)} samples, and needs an even number, anchors and then their partners: "
            "let its transfer_set form the batches."
        )
    middle = len(samples) // 2
    return samples[:middle], samples[middle:]
