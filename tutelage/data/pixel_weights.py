"""How pixels count in the loss of a segmentation: weights of rare classes, and hard pixels alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.data.samples import Samples
from tutelage.errors import UserError, unknown
from tutelage.losses import UNLABELLED, wide

BALANCED = "balanced"
_OPTIONS = ("class_weights", "ohem")
# Masks that are read at once to count the pixels of each class.
_CHUNK = 64


def weighed_cross_entropy(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, kept: float = 1.0
) -> Tensor:
    r"""Return the cross-entropy of the hardest pixels, $\sum_i w_{y_i} H_i / \sum_i w_{y_i}$.

    The hardest are those of the largest unweighted losses, a share of the labelled pixels of the batch (online hard
    example mining). 0, with a gradient of 0, where no pixel has a label.

    Args:
        logits: `[batch, class, height, width]`.
        targets: Class indices `[batch, height, width]`, -1 where there is none.
        weights: A weight of each class, `[class]`; all alike by default.
        kept: The share of the labelled pixels that is kept, above 0 and at most 1.
    """
    losses = F.cross_entropy(wide(logits), targets, ignore_index=UNLABELLED, reduction="none")
    known = targets != UNLABELLED
    hardest, wanted = losses[known], targets[known]
    if not len(hardest):
        return losses.sum()
    if kept < 1:
        hardest, order = hardest.topk(math.ceil(kept * len(hardest)))
        wanted = wanted[order]
    if weights is None:
        return hardest.mean()
    own = weights.to(hardest)[wanted]
    # Classes of weight 0 may be all that is there.
    return (own * hardest).sum() / own.sum().clamp(min=torch.finfo(own.dtype).tiny)


def median_frequency_weights(masks: Iterator[Tensor], classes: int) -> tuple[float, ...]:
    """Return the median of the classes' frequencies divided by that of each class; 1 for a class that never occurs.

    The frequency of a class is its share of the labelled pixels in those images that show it (Eigen and Fergus, ICCV
    2015, who count unlabelled pixels too).

    Args:
        masks: Batches of class indices `[batch, height, width]`, -1 where there is none.
        classes: How many classes there are.
    """
    own, around = torch.zeros(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    for batch in masks:
        for mask in batch:
            counts = torch.bincount(mask[mask != UNLABELLED].long().flatten().cpu(), minlength=classes).double()
            own += counts
            around += torch.where(counts > 0, counts.sum(), 0.0)
    occurs = own > 0
    frequencies = own[occurs] / around[occurs]
    found = torch.ones(classes, dtype=torch.float64)
    # The mean of the two in the middle, where torch's own median would take the lower one.
    found[occurs] = frequencies.quantile(0.5) / frequencies if len(frequencies) else frequencies
    return tuple(found.tolist())


@dataclass(frozen=True)
class PixelWeighing:
    """How pixels count in the supervised loss.

    Attributes:
        class_weights: A weight of each class; `balanced` for those of median frequencies; None for all alike.
        ohem: The share of the labelled pixels of a batch that counts: the hardest.
        balanced: The weights that `balanced` came to, once the masks are known.
    """

    class_weights: tuple[float, ...] | str | None = None
    ohem: float = 1.0
    balanced: tuple[float, ...] | None = None

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> PixelWeighing:
        """Read `class_weights=balanced` or `class_weights=1+0.5+2`, and `ohem=0.25`.

        Raises:
            UserError: If an option is unknown or out of range.
        """
        for key in options:
            if key not in _OPTIONS:
                raise unknown("option of the task segmentation", key, _OPTIONS)
        weights, share = options.get("class_weights"), options.get("ohem")
        return cls(
            class_weights=weights if weights in (None, BALANCED) else _weights(weights or ""),
            ohem=1.0 if share is None else _share(share),
        )

    def fitted(self, train: Samples, classes: int) -> PixelWeighing:
        """Return it with the weights that these masks balance.

        Raises:
            UserError: If the given weights are not as many as the classes.
        """
        if self.class_weights is not None and self.class_weights != BALANCED:
            self.numbers(classes)
        if self.class_weights != BALANCED or not train.has_targets:
            return self
        return replace(self, balanced=median_frequency_weights(_masks(train), classes))

    def numbers(self, classes: int) -> Tensor | None:
        """Return the weight of each class, float64 `[class]`; None if all are alike.

        Raises:
            UserError: If they are not as many as the classes, or the masks were never counted.
        """
        given = self.balanced if self.class_weights == BALANCED else self.class_weights
        if self.class_weights is None:
            return None
        if given is None or isinstance(given, str):
            raise UserError(
                "class_weights=balanced counts the pixels of all training masks, and these come from a DataLoader or "
                "are none: pass the dataset, or give the weights as numbers, class_weights=1+0.5+2."
            )
        if len(given) != classes:
            raise UserError(f"There are {len(given)} class_weights for {classes} classes: give one for each.")
        return torch.tensor(given, dtype=torch.float64)

    def __str__(self) -> str:
        # What `balanced` came to follows from the data.
        parts = [] if self.class_weights is None else [f" class_weights={self.class_weights}"]
        return "".join(parts + ([] if self.ohem == 1 else [f" ohem={self.ohem!r}"]))


def _masks(train: Samples) -> Iterator[Tensor]:
    """Yield the masks of all samples, batch by batch."""
    if train.targets is not None:
        yield from torch.split(train.targets, _CHUNK)
        return
    for start in range(0, len(train), _CHUNK):
        _, targets = train.read_batch(range(start, min(start + _CHUNK, len(train))))
        assert targets is not None
        yield targets


def _weights(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split("+"))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(one) and one >= 0 for one in found) or not any(found):
        raise UserError(
            f"class_weights={text}: write balanced, or a number of zero or more for each class, such as 1+0.5+2."
        )
    return found


def _share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 1:
        raise UserError(f"ohem={text}: write the share of the pixels to keep, above 0 and at most 1, such as 0.25.")
    return found
