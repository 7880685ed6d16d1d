"""FerKD: FKD whose crops are sorted by how sure the teacher is, and mixed only with crops of the same image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from tutelage.core.method import Method, TransferSet
from tutelage.core.registry import Paper, register
from tutelage.core.teachers import Teacher
from tutelage.data.batch import Batch
from tutelage.errors import UserError
from tutelage.features.extractor import FeatureExtractor
from tutelage.losses import UNLABELLED, wide
from tutelage.methods.parts.crops import (
    Mixture,
    check_crops,
    draw_shares,
    first_single_epoch,
    in_crops,
    soft_label_losses,
)
from tutelage.methods.parts.papers import FAST_KD
from tutelage.system import processes

if TYPE_CHECKING:
    from tutelage.core.method import AnySamples

FERKD = Paper(
    key="shen2023ferkd",
    title="FerKD: Surgical Label Adaptation for Efficient Distillation",
    authors="Shen, Zhiqiang",
    venue="IEEE/CVF International Conference on Computer Vision",
    year=2023,
    arxiv="2312.17473",
)

Confidence = Literal["label", "max"]


@register(
    "ferkd",
    papers=[FERKD, FAST_KD],
    losses=["soft_label_losses", "adapted_labels"],
    reads={"images", "classes", "sample-labels"},
    family="logits",
)
class FerKD(Method):
    r"""FerKD: FKD that discards the hardest and easiest crops, and teaches hard ones by a softened label.

    $$ L = -\frac{1}{|A|} \sum_{b \in A} \sum_k \tilde q_k(x_b) \log \mathrm{softmax}(z(x_b) / T)_k, \quad
    A = \{b : T_L \le c_b \le T_T\} $$

    $$ \tilde q(x_b) = \begin{cases} (1 - \epsilon) \text{ on the label, } \epsilon / (K - 1) \text{ elsewhere}
    & T_L \le c_b < T_M \\ \mathrm{softmax}(z^t(x_b) / T) & T_M \le c_b \le T_T \end{cases} $$

    $c_b$ is the probability that the teacher gives crop $x_b$'s label. Batches are those of `fkd`: $m$ crops of each
    image. SelfMix mixes a crop with another of the same image, and their labels $\tilde q$ by area; one that is
    discarded is not mixed into another. Labels are adapted before they are mixed, because a confidence belongs to one
    crop: the confidence of a mixture says nothing about either crop.

    The right thresholds depend on the teacher: count with `adapted_labels` which crops yours discard. A teacher that
    has memorised its training images has a confidence above any $T_T$ below 1 for nearly all of them.

    Args:
        student: The network to train.
        teacher: Any teacher that gives logits, recorded or not.
        batch_size: Crops in a batch, $B$, the discarded ones included.
        epochs: Length of the run.
        crops: Crops of an image in a batch, $m$. They divide the batch size.
        temperature: $T$, which softens both, above zero; $c_b$ is a softened probability too.
        discard_below: $T_L$: crops of a lower confidence are discarded, those of this one are hard.
        soft_from: $T_M$: crops of a lower confidence are hard, those of this one learn the soft label.
        discard_above: $T_T$: crops of a higher confidence are discarded, those of this one learn the soft label.
        smoothing: $\epsilon$, from 0 to below 1.
        confidence: $c_b$: the teacher's probability of the `label`, or its largest one (`max`).
        mixup: Parameter of the Beta distribution for SelfMix by Mixup, 0 for none.
        cutmix: The same for SelfMix by CutMix. Where both are above zero, each batch takes one of them.
        single_crop_end: Whether the last $m$ epochs, at most half of the run, take all images, one crop of each.

    Raises:
        UserError: As `fkd`, or if the thresholds do not rise from 0 to 1.

    Paper: Shen, FerKD: Surgical Label Adaptation for Efficient Distillation, ICCV 2023.

    Differences: No code is released, and we know the equations at second hand: the three cases and SelfMix. Ours are
        the thresholds, $\epsilon$, what the confidence is, which case a threshold itself belongs to, SelfMix's draw (as
        CutMix's, one $\lambda$ a batch; each crop with the one that stands a random number of crops further), and the
        order of adapting and mixing. By default no crop is too easy. Discarded crops pass through the student, unmixed,
        and so enter the statistics of batch norm, because a batch of a varying size would wait for the device. If all
        are discarded, the loss is zero. Several processes divide by the crops that all of them keep. Batches, as for
        `fkd`; in its last epochs of one crop there is nothing to mix.
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
        discard_below: float = 0.05,
        soft_from: float = 0.2,
        discard_above: float = 1.0,
        smoothing: float = 0.1,
        confidence: Confidence = "label",
        mixup: float = 0.0,
        cutmix: float = 1.0,
        single_crop_end: bool = True,
    ) -> None:
        check_crops(crops, temperature, mixup, cutmix)
        _check(discard_below, soft_from, discard_above, smoothing)
        super().__init__()
        self.student, self.teacher, self.batch_size = FeatureExtractor(student), teacher, batch_size
        self.crops, self.temperature, self.mixup, self.cutmix = crops, temperature, mixup, cutmix
        self.thresholds = (discard_below, soft_from, discard_above)
        self.smoothing, self.confidence = smoothing, confidence
        self.single_from = first_single_epoch(epochs, crops) if single_crop_end else None

    def transfer_set(self, dataset: AnySamples) -> TransferSet:
        """Return the data in batches of several crops of each image."""
        return in_crops(dataset, crops=self.crops, batch_size=self.batch_size, single_from=self.single_from)

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the cross-entropy with the adapted labels as `soft`, the mean over the crops that are kept.

        Args:
            batch: As many sections as there are crops, each of the same images. Crops of one image are known by the
                batch's `indices`; without them nothing is mixed.
        """
        # The teacher is asked about the unmixed crops: a confidence belongs to one crop, and a recording knows no
        # mixtures.
        soft = torch.softmax(wide(self.teacher(batch).logits) / self.temperature, dim=1)
        targets, kept = adapted_labels(
            soft, batch.labels, self.thresholds, smoothing=self.smoothing, confidence=self.confidence
        )
        inputs = batch.inputs
        if (self.mixup or self.cutmix) and self.crops > 1 and batch.indices is not None:
            shares = draw_shares(inputs, mixup=self.mixup, cutmix=self.cutmix)
            mixture = Mixture(partners=self_partners(batch.indices, kept, self.crops), shares=shares)
            inputs, targets = mixture.of_images(inputs), mixture.of_labels(targets)
        losses = soft_label_losses(self.student(inputs).logits, targets, self.temperature)
        # The mean over processes, because their gradients are averaged. The minimum avoids dividing by zero.
        number = processes.mean(kept.to(losses.dtype).sum()).clamp(min=1 / processes.count())
        return {"soft": (losses * kept).sum() / number}


def adapted_labels(
    soft: Tensor,
    labels: Tensor,
    thresholds: tuple[float, float, float],
    *,
    smoothing: float,
    confidence: Confidence = "label",
) -> tuple[Tensor, Tensor]:
    r"""Return the target of each crop, `[batch, class]`, and whether the crop is kept, `[batch]`.

    Args:
        soft: The teacher's probabilities, `[batch, class]`.
        labels: Class indices, `[batch]`, -1 for a crop without a label, which is not kept.
        thresholds: $T_L$, $T_M$ and $T_T$.
        smoothing: $\epsilon$.
        confidence: The confidence of a crop: the teacher's probability of the `label`, or its largest one (`max`).
    """
    low, middle, high = thresholds
    # An unlabelled crop takes class 0, only because `gather` needs an index; it is not kept.
    label = labels.clamp(min=0)[:, None]
    sure = soft.amax(1) if confidence == "max" else soft.gather(1, label)[:, 0]
    # With a single class there are no others to divide by.
    others = smoothing / max(1, soft.shape[1] - 1)
    hard = torch.full_like(soft, others).scatter(1, label, 1 - smoothing)
    return torch.where((sure < middle)[:, None], hard, soft), (sure >= low) & (sure <= high) & (labels != UNLABELLED)


def self_partners(indices: Tensor, kept: Tensor, crops: int) -> Tensor:
    """Return the index of another kept crop of the same image for each crop, `[batch]`; its own if there is none.

    Args:
        indices: Position of each sample in its dataset, `[batch]`, in `crops` equal sections.
        kept: Whether a crop is kept, `[batch]`.
        crops: Crops of an image, two or more.
    """
    places = torch.arange(len(indices), device=indices.device)
    # One draw for the whole batch: every crop is mixed with the one that stands as many sections further.
    further = torch.randint(1, crops, (), device=indices.device)
    # Sections hold the same images in the same order, so a whole section further is another crop of the same image.
    partners = (places + further * (len(indices) // crops)) % len(indices)
    # In the last epochs a batch has one crop of each image, and the partner is another image: such crops stay unmixed.
    fits = (indices[partners] == indices) & kept[partners] & kept
    return torch.where(fits, partners, places)


def _check(discard_below: float, soft_from: float, discard_above: float, smoothing: float) -> None:
    if not 0 <= discard_below <= soft_from <= discard_above <= 1:
        raise UserError(
            f"discard_below={discard_below}, soft_from={soft_from} and discard_above={discard_above} must be between 0 "
            "and 1, in rising order."
        )
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing={smoothing} must be at least 0 and below 1.")
