"""Segmentation: every pixel has a class or none, and a network answers each with a score for every class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.data.class_maps import CUSTOMARY, MASKS, ClassMaps, known_classes
from tutelage.data.criterion import CrossEntropy, Density
from tutelage.data.names import Spec
from tutelage.data.offers import Offer
from tutelage.data.pixel_weights import PixelWeighing, weighed_cross_entropy
from tutelage.data.samples import Samples
from tutelage.data.survey import Survey
from tutelage.data.targets import as_array
from tutelage.data.task import Detail, Meter, Metric, Task
from tutelage.errors import UserError
from tutelage.evaluation.shown import Shown, map_png
from tutelage.losses import UNLABELLED
from tutelage.models.answers import at_size

_ALL_ALIKE = PixelWeighing()
# Class numbers of own datasets: one byte each, less that which many give to pixels without a class.
_MOST_CLASSES = CUSTOMARY


class PixelCrossEntropy(CrossEntropy):
    """Scores of which a softmax over axis 1 makes probabilities, at each pixel that has a class.

    Args:
        weighing: How pixels count in the supervised loss.
    """

    def __init__(self, weighing: PixelWeighing = _ALL_ALIKE) -> None:
        self._weighing = weighing

    def loss(self, answer: Tensor, targets: Any) -> Tensor:
        """Return the cross-entropy, the mean over all pixels of the batch that have a class, or as they are weighed.

        Args:
            answer: Logits `[batch, class, height, width]`; of another size than the masks, they are brought to theirs.
            targets: Class indices `[batch, height, width]`, -1 where there is none.
        """
        wanted = targets.long()
        logits = at_size(answer, (wanted.shape[-2], wanted.shape[-1]))
        if self._weighing == _ALL_ALIKE:
            return super().loss(logits, wanted)
        weights = self._weighing.numbers(logits.shape[1])
        return weighed_cross_entropy(logits, wanted, weights=weights, kept=self._weighing.ohem)


class Segmentation(Task):
    """A class for each pixel: cross-entropy, mean intersection over union, pixel accuracy.

    Args:
        weighing: How pixels count in the supervised loss.
    """

    name = "segmentation"
    title = "segmentation"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {
            "miou": Metric(title="mean IoU", short="mIoU", unit="share", digits=2),
            "pixel_accuracy": Metric(title="pixel accuracy", short="pixel acc.", unit="share", digits=2),
        }
    )
    primary = "miou"
    watched = ("miou", "pixel_accuracy")
    judges = watched
    offers: ClassVar[frozenset[Offer]] = frozenset({"targets", "answers", "maps", "classes", "labels", "images"})
    map_format = MASKS
    augmentation = "scale:0.5:2,flip,colour:0.3"

    def __init__(self, weighing: PixelWeighing = _ALL_ALIKE) -> None:
        self._weighing, self.criterion = weighing, PixelCrossEntropy(weighing)
        # Pixels that count otherwise make another training of the same data.
        self.salt = f"segmentation{weighing}".encode()

    def configured(self, options: Mapping[str, str]) -> Segmentation:
        """Return the task with other weights of pixels: `segmentation,class_weights=balanced,ohem=0.25`."""
        return Segmentation(PixelWeighing.parse(options))

    def fitted(self, train: Samples, outputs: int) -> Segmentation:
        """Return the task with the weights of these masks' classes, if they are to be balanced."""
        found = self._weighing.fitted(train, outputs)
        return self if found == self._weighing else Segmentation(found)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its name, or by its weights if it has any."""
        return super().__reduce__() if self._weighing == _ALL_ALIKE else (Segmentation, (self._weighing,))

    def read_targets(self, values: Any, *, where: str) -> Tensor:
        """Return class indices, int16 `[sample, height, width]`, -1 where a pixel has no class (255 counts as that)."""
        if isinstance(values, list | tuple):
            values = [value if isinstance(value, Tensor) else np.asarray(value) for value in values]
        found = as_array(values, where=where)
        if found.ndim == 4 and found.shape[1] == 1:
            found = found[:, 0]
        if found.ndim != 3 or found.dtype.kind not in "iub":
            raise UserError(
                f"The targets of {where} have the shape {list(found.shape)} of {found.dtype}: the task 'segmentation' "
                "takes a mask of whole numbers [height, width] a sample, each of one size."
            )
        # Wide first: of uint8, -1 would be 255.
        indices = np.where(found == CUSTOMARY, UNLABELLED, found.astype(np.int64))
        low, high = (int(indices.min()), int(indices.max())) if indices.size else (0, 0)
        if low < UNLABELLED or high >= _MOST_CLASSES:
            raise UserError(
                f"The masks of {where} hold {low if low < UNLABELLED else high}: number the classes from 0 to "
                f"{_MOST_CLASSES - 1} at most; -1 or 255 is a pixel without a class."
            )
        return torch.from_numpy(indices.astype(np.int16))

    def map_reader(self, surveys: Mapping[str, Survey], where: Spec) -> ClassMaps:
        """Return what turns the numbers in masks into class indices."""
        return ClassMaps(surveys, known_classes(where))

    def count_outputs(self, targets: Tensor) -> int:
        """Return the number of classes: one more than the highest index."""
        return int(targets.max()) + 1

    def picture_of(self, targets: Tensor) -> str:
        """Return a mask `[height, width]` as a small PNG in base64."""
        return map_png(targets)

    def meter(self, *, density: Density = "categorical", detail: Detail = "scores") -> SegmentationMeter:
        """Return a fresh meter."""
        return SegmentationMeter(keeps_pictures=detail != "watched")

    def answer_maps(self, answer: Tensor) -> NDArray[Any]:
        """Return the number of the likeliest class of each pixel."""
        return answer.argmax(1).numpy().astype(np.uint8)

    def check_answer(self, shape: tuple[int, ...], samples: int, outputs: int, *, who: str, data: str) -> None:
        """Refuse a network that does not answer with a map of scores of each class."""
        if len(shape) != 4 or shape[:2] != (samples, outputs):
            raise UserError(
                f"The {who} answers {samples} samples with shape {shape}, but the masks of {data} have {outputs} "
                f"classes: it should be ({samples}, {outputs}, height, width), of any size. Segmentation networks by "
                "name: smp:PSPNet,encoder=resnet18 or torchvision:fcn_resnet50."
            )


class SegmentationMeter(Meter):
    """Intersection over union in one confusion matrix of all pixels, by torchmetrics, whatever the images' sizes.

    Args:
        keeps_pictures: Whether to keep a few answers to be drawn.
    """

    def __init__(self, *, keeps_pictures: bool = True) -> None:
        self._matrix: Any = None
        self._shown = Shown() if keeps_pictures else None

    def update(self, answer: Tensor, targets: Any, members: Tensor | None = None) -> None:
        """Take in logits `[batch, class, height, width]` of any size, and class indices `[batch, height, width]`."""
        from torchmetrics.classification import MulticlassConfusionMatrix

        wanted = targets.long()
        predicted = at_size(answer, (wanted.shape[-2], wanted.shape[-1])).argmax(1)
        if self._matrix is None:
            self._matrix = MulticlassConfusionMatrix(answer.shape[1], ignore_index=UNLABELLED, validate_args=False).to(
                answer.device
            )
        self._matrix.update(predicted, wanted)
        if self._shown is not None:
            self._shown.update(predicted)

    def merge(self, later: SegmentationMeter) -> None:
        """Add the pixels that another meter counted."""
        if self._matrix is None:
            self._matrix = later._matrix
        elif later._matrix is not None:
            self._matrix.confmat += later._matrix.confmat.to(self._matrix.confmat.device)
        if self._shown is not None and later._shown is not None:
            self._shown.merge(later._shown)

    def compute(self) -> dict[str, float]:
        """Return the mean IoU over the classes that occur in masks or answers, and the share of pixels that are right.

        A class that is in neither has no IoU.
        """
        if self._matrix is None:
            return {}
        counts = self._counts()
        total, union = counts.sum(), _unions(counts)
        if not total:
            return {}
        shares = counts.diag()[union > 0] / union[union > 0]
        return {"miou": float(shares.mean()), "pixel_accuracy": float(counts.diag().sum() / total)}

    def pictures(self) -> dict[str, Any]:
        """Return the IoU of each class, None for one without, and some answers as images."""
        if self._matrix is None:
            return {}
        counts = self._counts()
        union = _unions(counts)
        shares = [float(right / whole) if whole else None for right, whole in zip(counts.diag(), union, strict=True)]
        return {"iou": shares, **({} if self._shown is None else {"maps": self._shown.images()})}

    def _counts(self) -> Tensor:
        """Return how many pixels of each class, by row, were answered with each class, by column, float64."""
        found: Tensor = self._matrix.compute().double().cpu()
        return found


def _unions(counts: Tensor) -> Tensor:
    return counts.sum(0) + counts.sum(1) - counts.diag()


SEGMENTATION = Segmentation()
