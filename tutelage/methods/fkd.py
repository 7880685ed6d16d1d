"""FKD: several crops of an image in a step, learned from soft labels alone, which may be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, TransferSet
from tutelage.core.registry import register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import wide
from tutelage.methods.parts.crops import (
    Mixture,
    check_crops,
    draw_shares,
    first_single_epoch,
    in_crops,
    soft_label_losses,
)
from tutelage.methods.parts.papers import FAST_KD

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples


@register("fkd", papers=[FAST_KD], losses=["soft_label_losses"], reads={"images", "classes"}, family="logits")
class FKD(Method):
    r"""FKD: several crops of an image in a step, learned from the teacher's soft labels alone.

    $$ L = -\frac{1}{B} \sum_{b=1}^B \sum_k q_k(x_b) \log \mathrm{softmax}(z(x_b) / T)_k, \quad
    q(x_b) = \mathrm{softmax}(z^t(x_b) / T) $$

    A batch of $B$ holds $m$ crops of each of $B / m$ images. An epoch takes one $m$-th of the images and costs what an
    epoch of any other method costs: `epochs` means the same, and each image comes once in any $m$ epochs in a row.
    Labels are not used, and there is no $T^2$.

    The paper's teacher is recorded: `tutelage record`, then `--teacher recording:PATH`, with $m$ views or more. A
    recorded view is not used again before all others have been used, except in the last epochs of one crop. A live
    teacher answers freshly drawn crops instead.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits, recorded or not.
        batch_size: Crops in a batch, $B$.
        epochs: Length of the run.
        crops: Crops of an image in a batch, $m$. They divide the batch size.
        temperature: $T$, which softens both, above zero.
        mixup: Parameter of the Beta distribution for Mixup of the batch with its images in another order, 0 for none;
            the soft labels are mixed alike. The authors have 0.8.
        cutmix: The same for CutMix, where 1 is the authors'. Where both are above zero, each batch takes one of them.
        single_crop_end: Whether the last $m$ epochs, at most half of the run, take all images, one crop of each.

    Raises:
        UserError: If a number is out of its range, crops or processes do not divide the batch, fewer views are recorded
            than a batch shows, or inputs to mix are not images.

    Paper: Shen, Xing, A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022.

    Differences: In the authors' code a pass over all images counts as $m$ epochs, at whose start all are shuffled, and
        an image's crops are drawn anew from the recorded ones each time. Here the images are dealt into $m$ parts once,
        and an epoch shuffles its part; the crops go round. The temperature is the authors' for recording alone, where
        it is 1; here it divides both logits. Which of Mixup and CutMix a batch takes is an even chance, our choice; its
        $\lambda$ is one number. Several processes mix their own parts of a batch. Where $m$ does not divide the number
        of images, up to $m - 1$ are left out of $m$ epochs, each time others.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        batch_size: int = 128,
        epochs: int | None = None,
        *,
        crops: int = 4,
        temperature: float = 1.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        single_crop_end: bool = True,
    ) -> None:
        check_crops(crops, temperature, mixup, cutmix)
        super().__init__()
        self.student, self.teacher, self.batch_size = FeatureExtractor(student), teacher, batch_size
        self.crops, self.temperature, self.mixup, self.cutmix = crops, temperature, mixup, cutmix
        self.single_from = first_single_epoch(epochs, crops) if single_crop_end else None

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data in batches of several crops of each image."""
        # One m-th of the images in an epoch, m crops of each, so an epoch costs what any other costs.
        return in_crops(dataset, crops=self.crops, batch_size=self.batch_size, single_from=self.single_from)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy with the soft labels as `soft`."""
        # The teacher is asked about the unmixed crops, because a recording has no answers to mixtures.
        inputs, targets = batch.inputs, torch.softmax(wide(self.teacher(batch).logits) / self.temperature, dim=1)
        if self.mixup or self.cutmix:
            shares = draw_shares(inputs, mixup=self.mixup, cutmix=self.cutmix)
            mixture = Mixture(partners=torch.randperm(len(batch), device=inputs.device), shares=shares)
            inputs, targets = mixture.of_images(inputs), mixture.of_labels(targets)
        return {"soft": soft_label_losses(self.student(inputs).logits, targets, self.temperature).mean()}
